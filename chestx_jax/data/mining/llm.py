"""The miner that asks a language model: stages, verification, one repair, quarantine.

Everything that was answered lies in `workdir/answers` (the client's cache), so a run that was killed goes on where
it stopped and pays for nothing twice. What became of a sample, with the output of every stage, lies in
`workdir/samples`, one file each.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from chestx_jax.data.jsonl import atomic_text
from chestx_jax.data.mining.stages import Prompts, request, stages_of
from chestx_jax.data.mining.verification import Verification, verify
from chestx_jax.data.schema import Sample
from chestx_jax.llm import Answer, Client, Endpoint, Request

BATCH = 256
"""Samples that go through the stages together; results come out after each batch."""


@dataclass(frozen=True)
class Mined:
    """What became of one sample.

    Attributes:
      sample: with the mined `reason_steps`; without any where a stage gave no valid answer.
      status: mined, repaired, or quarantined.
      reasons: why it is quarantined; empty otherwise.
      first: the verification before the repair; None without steps.
      outputs: stage -> its checked JSON.
    """

    sample: Sample
    status: str
    reasons: tuple[str, ...] = ()
    first: Verification | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Work:
    """A sample on its way through the stages."""

    sample: Sample
    outputs: dict[str, Any] = field(default_factory=dict)
    failed: str | None = None


def mine_llm(
    samples: Iterable[Sample], endpoint: Endpoint, workdir: Path, prompts: Path | None = None
) -> Iterator[Mined]:
    """Mines samples in their order, `BATCH` at a time, `endpoint.concurrency` requests at once.

    Args:
      endpoint: any OpenAI-compatible server.
      workdir: keeps the answers and the outputs; give the same one to go on after an interruption.
      prompts: a directory with prompts of one's own in place of the package's.

    Raises:
      MiningError: a sample lacks what its prompts need, or a prompt is missing or names an unknown field.
      LLMError: the endpoint cannot be used; what was answered until then is kept.
    """
    texts = Prompts.read(prompts)
    client = Client(endpoint, answers_of(workdir))
    stream = iter(samples)
    while group := tuple(islice(stream, BATCH)):
        for mined in _mine(group, client, texts):
            _keep(mined, endpoint, workdir, texts)
            yield mined


def answers_of(workdir: Path) -> Path:
    """Where the client keeps its answers."""
    return workdir / "answers"


def _mine(samples: Sequence[Sample], client: Client, prompts: Prompts) -> Iterator[Mined]:
    works = [_Work(sample) for sample in samples]
    for stage in ("plan", "joint", "evidence", "refine"):
        ready = [work for work in works if stage in stages_of(work.sample) and work.failed is None]
        _ask(stage, ready, [request(stage, w.sample, w.outputs, prompts) for w in ready], client)
    checks = [verify(_told(work)) if work.failed is None else None for work in works]
    poor = [(work, check) for work, check in zip(works, checks, strict=True) if check and not check.ok]
    asked = [request("repair", w.sample, w.outputs, prompts, check.reasons) for w, check in poor]
    _ask("repair", [work for work, _ in poor], asked, client)
    for work, check in zip(works, checks, strict=True):
        yield _result(work, check)


def _ask(stage: str, works: Sequence[_Work], asked: Sequence[Request], client: Client) -> None:
    for work, result in zip(works, client.ask_all(asked), strict=True):
        if isinstance(result, Answer):
            work.outputs[stage] = result.value
        else:
            work.failed = f"{stage}: {result.reason}"


def _told(work: _Work) -> Sample:
    output = work.outputs.get("repair") or work.outputs["refine"]
    return replace(work.sample, reason_steps=tuple(step.strip() for step in output["steps"]))


def _result(work: _Work, first: Verification | None) -> Mined:
    if first is None:
        return Mined(work.sample, "quarantined", (str(work.failed),), None, work.outputs)
    told = _told(work)
    if first.ok:
        return Mined(told, "mined", (), first, work.outputs)
    last = verify(told)
    if last.ok:
        return Mined(told, "repaired", (), first, work.outputs)
    extra = (work.failed,) if work.failed else ()
    return Mined(told, "quarantined", (*extra, *last.reasons), first, work.outputs)


def _keep(mined: Mined, endpoint: Endpoint, workdir: Path, prompts: Prompts) -> None:
    """Writes what became of a sample; the same again on a rerun."""
    name = hashlib.sha256(mined.sample.id.encode()).hexdigest()
    path = workdir / "samples" / name[:2] / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "id": mined.sample.id,
        "status": mined.status,
        "reasons": list(mined.reasons),
        "found_before_repair": list(mined.first.reasons) if mined.first else None,
        "model": endpoint.model,
        "prompts": {"version": prompts.version, "digest": prompts.digest},
        "outputs": dict(mined.outputs),
    }
    with atomic_text(path) as file:
        json.dump(record, file, ensure_ascii=False, indent=1)
        file.write("\n")
