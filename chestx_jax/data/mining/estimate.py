"""A dry run of the language-model miner: calls, tokens and cost, without sending anything."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chestx_jax.data.mining.llm import answers_of
from chestx_jax.data.mining.stages import Prompts, request, stages_of
from chestx_jax.data.mining.verification import verify
from chestx_jax.data.schema import Sample
from chestx_jax.llm import AnswerCache, Endpoint, Request
from chestx_jax.llm.counts import CHARACTERS_PER_TOKEN

TYPICAL = {"plan": 1700, "evidence": 1200, "joint": 1000, "refine": 1200, "repair": 1200}
"""Characters of an answer: plan and refined steps as GPT-4o wrote them for the released Open-i samples (means
1,697 and 1,213), the others taken to be like them."""
_ENTRY: dict[str, tuple[str, dict[str, str]]] = {
    "plan": ("plan", {"option": "", "look_at": "", "why": ""}),
    "evidence": ("evidence", {"option": "", "observation": "", "status": "absent"}),
    "joint": ("comparison", {"area": "", "reference": "", "new": "", "change": ""}),
}


@dataclass(frozen=True)
class MiningEstimate:
    """What mining would cost.

    Attributes:
      answered: requests whose answer is there already, or that equal another one.
      calls: requests that would be sent if none failed and nothing needed repair.
      most_repairs: further calls if every sample that is not mined yet needed its repair.
      prompt_tokens, completion_tokens: of `calls`, estimated from characters.
      repair_prompt_tokens, repair_completion_tokens: of `most_repairs`.
    """

    samples: int = 0
    answered: int = 0
    calls: int = 0
    most_repairs: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    repair_prompt_tokens: int = 0
    repair_completion_tokens: int = 0

    def cost(self, prompt_price: float, completion_price: float, repairs: bool = False) -> float:
        """The cost for prices a million tokens, with the most repairs where asked."""
        prompt = self.prompt_tokens + repairs * self.repair_prompt_tokens
        completion = self.completion_tokens + repairs * self.repair_completion_tokens
        return (prompt * prompt_price + completion * completion_price) / 1e6

    def summary(self, prompt_price: float, completion_price: float) -> str:
        """One line for the terminal."""
        low, high = (self.cost(prompt_price, completion_price, repairs) for repairs in (False, True))
        return (
            f"dry run: {self.samples} samples, {self.calls} calls to make ({self.answered} answered already or "
            f"shared) and at most {self.most_repairs} repairs; about {self.prompt_tokens} prompt and "
            f"{self.completion_tokens} completion tokens; cost {low:.2f}, with all repairs {high:.2f}"
        )


def estimate_llm(
    samples: Iterable[Sample], endpoint: Endpoint, workdir: Path, prompts: Path | None = None
) -> MiningEstimate:
    """What `mine_llm` of these samples would still send. Sends nothing, needs no key.

    Requests that rest on an answer that is not there yet are counted with one of `TYPICAL` length.

    Raises: as `mine_llm`.
    """
    texts = Prompts.read(prompts)
    cache = AnswerCache(answers_of(workdir))
    total = MiningEstimate()
    pending: set[str] = set()
    for sample in samples:
        total = _add(total, sample, endpoint, cache, texts, pending)
    return total


def _add(
    total: MiningEstimate,
    sample: Sample,
    endpoint: Endpoint,
    cache: AnswerCache,
    prompts: Prompts,
    pending: set[str],
) -> MiningEstimate:
    outputs: dict[str, Any] = {}
    known = True
    total = replace(total, samples=total.samples + 1)
    for stage in stages_of(sample):
        asked = request(stage, sample, outputs, prompts)
        digest = asked.digest(endpoint)
        stored = _stored(cache, digest) if known else None
        outputs[stage] = stored["value"] if stored else _stand_in(stage)
        if stored or (known and digest in pending):
            total = replace(total, answered=total.answered + 1)
        else:
            total = replace(
                total,
                calls=total.calls + 1,
                prompt_tokens=total.prompt_tokens + _tokens(asked),
                completion_tokens=total.completion_tokens + TYPICAL[stage] // CHARACTERS_PER_TOKEN,
            )
        if known:
            pending.add(digest)
        known = known and stored is not None
    return _add_repair(total, sample, outputs, known, endpoint, cache, prompts)


def _add_repair(
    total: MiningEstimate,
    sample: Sample,
    outputs: dict[str, Any],
    known: bool,
    endpoint: Endpoint,
    cache: AnswerCache,
    prompts: Prompts,
) -> MiningEstimate:
    """A repair that may come; of a sample whose steps are there, the one that comes."""
    problems: tuple[str, ...] = ("step 1: contradicted by the report",)
    if known:
        check = verify(replace(sample, reason_steps=tuple(outputs["refine"]["steps"])))
        if check.ok:
            return total
        problems = check.reasons
    asked = request("repair", sample, outputs, prompts, problems)
    if known and _stored(cache, asked.digest(endpoint)):
        return replace(total, answered=total.answered + 1)
    return replace(
        total,
        most_repairs=total.most_repairs + 1,
        repair_prompt_tokens=total.repair_prompt_tokens + _tokens(asked),
        repair_completion_tokens=total.repair_completion_tokens + TYPICAL["repair"] // CHARACTERS_PER_TOKEN,
    )


def _stored(cache: AnswerCache, digest: str) -> dict[str, Any] | None:
    """The stored answer; a broken file counts as none, as the client would ask again."""
    try:
        return cache.read(digest)
    except ValueError:
        return None


def _tokens(asked: Request) -> int:
    return -(-(len(asked.system) + len(asked.user)) // CHARACTERS_PER_TOKEN)


def _stand_in(stage: str) -> dict[str, Any]:
    """An answer of typical length."""
    if stage == "refine":
        return {"steps": ["x" * (TYPICAL[stage] // 2)] * 2}
    name, entry = _ENTRY[stage]
    first = next(iter(entry))
    return {name: [{**entry, first: "x" * TYPICAL[stage]}]}
