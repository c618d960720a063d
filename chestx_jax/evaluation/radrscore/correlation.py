"""Rank correlation between two judges, with intervals over studies."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

RESAMPLES = 1000


def spearman(one: Float[np.ndarray, " N"], two: Float[np.ndarray, " N"]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side is constant."""
    x, y = _ranks(one), _ranks(two)
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


def spearman_interval(
    one: Float[np.ndarray, " N"], two: Float[np.ndarray, " N"], studies: Sequence[Hashable], seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap that draws whole studies, as one study is judged for several models. NaN
    where a side is constant."""
    if np.isnan(spearman(one, two)):
        return float("nan"), float("nan")
    rows: dict[Hashable, list[int]] = {}
    for i, study in enumerate(studies):
        rows.setdefault(study, []).append(i)
    clusters = [np.array(found) for found in rows.values()]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([clusters[i] for i in rng.integers(0, len(clusters), len(clusters))])
        values.append(spearman(one[drawn], two[drawn]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _ranks(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
