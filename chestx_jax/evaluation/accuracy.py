"""Accuracy by task, beside what a model that never looked would get."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chestx_jax.data.chat import match, parse
from chestx_jax.data.schema import Sample

RESAMPLES = 2000


@dataclass(frozen=True)
class Case:
    """One judged prediction."""

    sample: Sample
    prediction: str
    answer: str | None  # what the parser read; None when it found no answer
    rule: str  # which rule of the answer grammar read it
    steps: tuple[str, ...]
    correct: bool


@dataclass(frozen=True)
class Accuracy:
    """A row of the accuracy table; shares are between 0 and 1."""

    task: str
    count: int
    accuracy: float
    low: float  # 95 % bootstrap interval
    high: float
    majority: float  # accuracy of always giving the task's most frequent answer
    unparsed: int  # predictions in which no answer was found; they count as wrong


def judge(samples: Sequence[Sample], predictions: Mapping[str, Mapping[str, Any]]) -> list[Case]:
    """Each sample with its prediction; a sample without one is judged on the empty text, thus wrong."""
    cases = []
    for sample in samples:
        text = predictions[sample.id]["prediction"] if sample.id in predictions else ""
        parsed = parse(text)
        cases.append(
            Case(sample, text, parsed.answer, parsed.rule, parsed.steps, correct=match(parsed, sample))
        )
    return cases


def accuracy_table(cases: Sequence[Case], seed: int = 0) -> list[Accuracy]:
    """One row a task, in order of first appearance, and a last row "all" when there are several.

    The interval is the percentile bootstrap over samples (Efron & Tibshirani 1993, ch. 13).
    """
    tasks = list(dict.fromkeys(case.sample.task for case in cases))
    rows = [_row(task, [case for case in cases if case.sample.task == task], seed) for task in tasks]
    if len(tasks) > 1:
        total = _row("all", cases, seed)
        by_task = sum(row.majority * row.count for row in rows) / total.count
        rows.append(Accuracy(**{**vars(total), "majority": by_task}))
    return rows


def _row(task: str, cases: Sequence[Case], seed: int) -> Accuracy:
    correct = np.array([case.correct for case in cases], dtype=np.float64)
    low, high = bootstrap_interval(correct, seed)
    most = Counter(case.sample.answer for case in cases).most_common(1)[0][1]
    return Accuracy(
        task=task,
        count=len(cases),
        accuracy=float(correct.mean()),
        low=low,
        high=high,
        majority=most / len(cases),
        unparsed=sum(case.answer is None for case in cases),
    )


def bootstrap_interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of the mean over resamples of `values` with replacement."""
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
