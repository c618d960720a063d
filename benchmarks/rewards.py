"""The rewards on the real outputs of two models for Open-i: ways to fool them, and speed.

    python -m benchmarks.rewards [--judged=../shared/data/radrbench/openi_judged.jsonl.gz] [--json=rewards.json]

The probes. Each replaces or stretches the reasoning of a real output and keeps its answer; the gold reasoning
comes with the right answer. Format and outcome are the same in all but the gold row and "no reasoning": only
the process reward tells the reasoning apart. "below real by" is the real outputs' mean process reward minus
the probe's, with the 95 % interval over outputs; "lower %" the share of outputs whose probe earns less.
Reports are split into halves by their hash: the weights of the process reward were picked on the development
half.

The speed. Groups of 8 as in GRPO: a sample with its own outputs and, to fill up, outputs for other samples, so
that no text is twice in a group. CPU seconds on one core, all three rewards. "nothing known": the sample is
read as well, and no sentence has been seen before the group; "sample known": only the latter; "sentences
known": a later epoch, or completions that say what others said.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestx_jax.evaluation.accuracy import bootstrap_interval
from chestx_jax.evaluation.radrscore import read_judged
from chestx_jax.evaluation.radrscore.judged import reference_of, subjects_of
from chestx_jax.evaluation.radrscore.probes import Attempt, attempts
from chestx_jax.evaluation.tables import markdown
from chestx_jax.radiology.findings import read_sentence
from chestx_jax.rewards import RewardMixture, process, reward
from chestx_jax.rewards.process import process_score
from chestx_jax.rewards.reading import parse_once, read_text

DEFAULT = Path(__file__).resolve().parents[2] / "shared/data/radrbench/openi_judged.jsonl.gz"
GROUP = 8
STEP = 256 * GROUP
"""Completions of a training step in the paper's setting."""
MIXTURE = {
    name: dict(function=name, weight=1.0, clip=(0.0, 1.0), schedule=())
    for name in ("format", "outcome", "process")
}


@dataclass(frozen=True)
class Row:
    """Means of the rewards over n outputs; `total` is their sum."""

    name: str
    n: int
    format: float
    outcome: float
    process: float
    total: float
    margin: float
    interval: tuple[float, float]
    lower: float


def reward_table(tried: dict[str, list[Attempt]]) -> list[Row]:
    """One row a way of reasoning."""
    scores = {name: _score(own) for name, own in tried.items()}
    rows = []
    for name, own in scores.items():
        gap = scores["real output"][:, 2] - own[:, 2]
        parts = [float(value) for value in own.mean(axis=0)]
        lower = float((gap > 1e-9).mean())
        interval = bootstrap_interval(gap, seed=0)
        rows.append(Row(name, len(own), *parts, sum(parts), float(gap.mean()), interval, lower))
    return rows


def _score(tried: Sequence[Attempt]) -> np.ndarray:
    """[N, 3]: format, outcome, process."""
    lines = ("\n".join(steps) for steps, _, _ in tried)
    texts = [
        f"<think> {line} </think><answer> {answer or ''} </answer>"
        for line, (_, answer, _) in zip(lines, tried, strict=True)
    ]
    references = [reference for _, _, reference in tried]
    gold: dict[str, Any] = {
        "options": [r.options for r in references],
        "answer": [r.answer for r in references],
    }
    parts = [reward(name)(prompts=texts, completions=texts, **gold) for name in ("format", "outcome")]
    reasoned = [process_score(read_text(text), one) for text, one in zip(texts, references, strict=True)]
    return np.array([*parts, reasoned], dtype=np.float64).T


def probe_markdown(rows: Sequence[Row]) -> str:
    header = ("reasoning", "n", "format", "outcome", "process", "sum", "below real by", "95 %", "lower %")
    cells = [
        (
            row.name,
            str(row.n),
            *(f"{vars(row)[name]:.3f}" for name in ("format", "outcome", "process", "total")),
            f"{row.margin:+.3f}",
            "{:+.3f} to {:+.3f}".format(*row.interval),
            f"{100 * row.lower:.0f}",
        )
        for row in rows
    ]
    return markdown(header, cells)


@dataclass(frozen=True)
class Group:
    """Completions of one sample, with its columns."""

    completions: list[str]
    columns: dict[str, list[Any]]


def groups_of(records: Sequence[dict[str, Any]]) -> list[Group]:
    """`GROUP` different outputs for every sample: its own first, then those of the records that follow."""
    samples: dict[tuple[str, ...], dict[str, Any]] = {}
    for record in records:
        samples.setdefault((record["original_report"], *record["reason_steps"], record["answer"]), record)
    groups = []
    for place, first in enumerate(samples.values()):
        own = [r["pred"] for r in records if r["original_report"] == first["original_report"]]
        others = [r["pred"] for r in [*records[place:], *records[:place]]]
        reference = reference_of(first)
        columns = {
            "reason_steps": first["reason_steps"],
            "report": first["original_report"],
            "options": reference.options,
            "answer": reference.answer,
        }
        texts = list(dict.fromkeys([*own, *others]))[:GROUP]
        groups.append(Group(texts, {name: [value] * GROUP for name, value in columns.items()}))
    return groups


def speed(groups: Sequence[Group]) -> dict[str, float]:
    """Completions a CPU second, by what is known beforehand."""
    mixture = RewardMixture.from_config(MIXTURE)

    def forget_all() -> None:
        process._reference.cache_clear()
        read_sentence.cache_clear()

    def rate(forget: Callable[[], None]) -> float:
        spent = 0.0
        for group in groups:
            forget()
            parse_once.cache_clear()
            begin = time.process_time()
            mixture(0, group.completions, group.completions, group.columns)
            spent += time.process_time() - begin
        return sum(len(group.completions) for group in groups) / spent

    ways = {
        "nothing known": forget_all,
        "sample known": read_sentence.cache_clear,
        "sentences known": lambda: None,
    }
    rate(forget_all)  # loads the vocabulary
    rates = {}
    for name, forget in ways.items():
        if name == "sentences known":
            rate(forget)
        rates[name] = rate(forget)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judged", type=Path, default=DEFAULT)
    parser.add_argument("--json", type=Path, default=Path("rewards.json"), help="the tables as JSON")
    args = parser.parse_args()
    records = read_judged(args.judged)
    tables = {}
    for name, part in (
        ("development half", [r for r in records if not _held_out(r)]),
        ("held-out half", [r for r in records if _held_out(r)]),
        ("open questions of both", [r for r in records if r["task"] == "multi_no_option"]),
    ):
        tables[name] = reward_table(attempts(subjects_of(part)))
        print(f"Rewards of probes, {name}\n\n{probe_markdown(tables[name])}\n")
    groups = groups_of(records)
    rates = speed(groups)
    characters = np.mean([len(text) for group in groups for text in group.completions])
    print(f"Completions a second on one core ({len(groups)} groups, {characters:.0f} characters on average)")
    print("\n".join(f"  {name}: {r:.0f}, {STEP} in {STEP / r:.1f} s" for name, r in rates.items()))
    result = {"probes": tables, "completions_per_second": rates}
    args.json.write_text(json.dumps(result, indent=1, default=dataclasses.asdict) + "\n", encoding="utf-8")


def _held_out(record: dict[str, Any]) -> bool:
    return int(hashlib.sha256(record["original_report"].encode()).hexdigest()[:2], 16) % 2 == 1


if __name__ == "__main__":
    main()
