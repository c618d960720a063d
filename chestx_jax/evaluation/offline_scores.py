"""The offline RadRScore of models on tasks: means with intervals. Not the one a language model judges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chestx_jax.evaluation.accuracy import Case, bootstrap_interval
from chestx_jax.evaluation.tables import markdown
from chestx_jax.rewards.offline import OfflineRadRScore, score_reading
from chestx_jax.rewards.reading import Reading, read_text
from chestx_jax.rewards.reference import Reference

COMPONENTS = ("factuality", "completeness", "effectiveness")


@dataclass(frozen=True)
class Scored:
    """A case with its offline RadRScore and what it was read from."""

    case: Case
    reading: Reading
    reference: Reference
    result: OfflineRadRScore


@dataclass(frozen=True)
class OfflineRow:
    """Means of the offline RadRScore of one model on one task; between 0 and 1.

    Attributes:
      count: samples in the means, those with gold reasoning and report; `left_out` are the others.
      silent: of `count`, predictions without reasoning; they score 0.
      intervals: 95 % bootstrap interval by name of component and "score".
    """

    model: str
    task: str
    count: int
    left_out: int
    silent: int
    factuality: float
    completeness: float
    effectiveness: float
    score: float
    intervals: Mapping[str, tuple[float, float]]


def score_offline(models: Mapping[str, Sequence[Case]]) -> dict[str, list[Scored | None]]:
    """By model, in the order of its cases; None where the sample has no gold reasoning or no report."""
    references: dict[str, Reference] = {}
    scored: dict[str, list[Scored | None]] = {}
    for model, cases in models.items():
        scored[model] = []
        for case in cases:
            sample = case.sample
            if not sample.reason_steps or not sample.report:
                scored[model].append(None)
                continue
            if sample.id not in references:
                references[sample.id] = Reference.of_sample(sample)
            reading, reference = read_text(case.prediction), references[sample.id]
            scored[model].append(Scored(case, reading, reference, score_reading(reading, reference)))
    return scored


def offline_table(
    models: Mapping[str, Sequence[Case]], scored: Mapping[str, Sequence[Scored | None]], seed: int = 0
) -> list[OfflineRow]:
    """A row a task and model, tasks first, "all" last where there are several; none for tasks without gold
    reasoning."""
    tasks = list(dict.fromkeys(case.sample.task for cases in models.values() for case in cases))
    rows = []
    for task in [*tasks, *(["all"] if len(tasks) > 1 else [])]:
        for model, cases in models.items():
            own = [
                one
                for case, one in zip(cases, scored[model], strict=True)
                if task in (case.sample.task, "all")
            ]
            if any(own):
                rows.append(_row(model, task, own, seed))
    return rows


def _row(model: str, task: str, own: Sequence[Scored | None], seed: int) -> OfflineRow:
    there = [one for one in own if one is not None]
    values = {
        name: np.array([vars(one.result)[name] for one in there], np.float64)
        for name in (*COMPONENTS, "score")
    }
    return OfflineRow(
        model=model,
        task=task,
        count=len(there),
        left_out=len(own) - len(there),
        silent=sum(not one.reading.sentences for one in there),
        **{name: float(value.mean()) for name, value in values.items()},
        intervals={name: bootstrap_interval(value, seed) for name, value in values.items()},
    )


def offline_markdown(rows: Sequence[OfflineRow]) -> str:
    """The offline RadRScore table."""

    def cell(row: OfflineRow, name: str) -> str:
        low, high = row.intervals[name]
        return f"{vars(row)[name]:.3f} ({low:.3f} to {high:.3f})"

    return markdown(
        ("task", "model", "samples", *COMPONENTS, "offline RadRScore", "without reasoning"),
        [
            (
                row.task,
                row.model,
                str(row.count),
                *(cell(row, n) for n in (*COMPONENTS, "score")),
                str(row.silent),
            )
            for row in rows
        ],
    )
