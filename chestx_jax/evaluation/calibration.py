"""Whether a model's probabilities mean what they say: an answer's probability against how often it is right.

A row of predictions has the log-probability of all its tokens. That is the answer's own only where nothing
but the answer was written (rule "answer_only", `--mode=answer`), so only those rows count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chestx_jax.evaluation.accuracy import Case

LEAST = 20
"""Fewer answers than this tell nothing."""
BINS = 10


@dataclass(frozen=True)
class Calibration:
    """`bins` hold (mean probability, share right, count), ten of equal width, empty ones left out.

    `error` is the expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3).
    """

    model: str
    count: int
    error: float
    bins: tuple[tuple[float, float, int], ...]


def probability(case: Case, row: Mapping[str, Any] | None) -> float | None:
    """The probability that the model gave its answer, None where the row does not tell it."""
    value = row.get("log_probability") if row else None
    if not isinstance(value, int | float) or case.rule != "answer_only" or case.sample.options is None:
        return None
    return math.exp(value) if value <= 0 else None


def calibrate(model: str, cases: Sequence[Case], rows: Mapping[str, Mapping[str, Any]]) -> Calibration | None:
    """None where fewer than `LEAST` answers come with a probability."""
    pairs = [
        (p, case.correct) for case in cases if (p := probability(case, rows.get(case.sample.id))) is not None
    ]
    if len(pairs) < LEAST:
        return None
    groups: dict[int, list[tuple[float, bool]]] = {}
    for p, correct in pairs:
        groups.setdefault(min(BINS - 1, int(p * BINS)), []).append((p, correct))
    bins = tuple(
        (sum(p for p, _ in group) / len(group), sum(c for _, c in group) / len(group), len(group))
        for _, group in sorted(groups.items())
    )
    error = sum(count * abs(share - confidence) for confidence, share, count in bins) / len(pairs)
    return Calibration(model, len(pairs), error, bins)
