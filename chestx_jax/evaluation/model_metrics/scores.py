"""Predicted reasoning against the report, by metrics that are trained models: RaTEScore, RadGraph, CheXbert."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from chestx_jax.evaluation.accuracy import RESAMPLES, Case
from chestx_jax.evaluation.model_metrics.scorer import Scorer
from chestx_jax.evaluation.tables import markdown
from chestx_jax.evaluation.text_metrics import MetricsError

log = logging.getLogger(__name__)

LABELS = 14
FIVE = (
    1,
    4,
    5,
    7,
    9,
)  # Cardiomegaly, Edema, Consolidation, Atelectasis, Pleural Effusion in f1chexbert's order
TELL_EVERY = 100
NOTE = (
    "Reasoning against the whole report. A prediction without reasoning scores 0 (CheXbert: names no label). "
    "RaTEScore gives 0.5 where it finds no entity in one of the texts; CheXbert counts uncertain as present."
)


@dataclass(frozen=True)
class ModelMetric:
    """One measure of one model's reasoning, between 0 and 1.

    Attributes:
      count: samples with a report.
      silent: those of them whose prediction has no reasoning.
      low, high: 95 % bootstrap interval over samples.
      package: name and version.
    """

    model: str
    measure: str
    count: int
    silent: int
    value: float
    low: float
    high: float
    package: str


def _column(rows: np.ndarray, at: int) -> float:
    return float(rows[:, at].mean())


def _f1(rows: np.ndarray, labels: Sequence[int], average: str) -> float:
    """Rows [N, 28]: 14 predicted, then 14 gold labels. A label that neither side has counts 0 in the macro mean."""
    predicted, gold = rows[:, list(labels)], rows[:, [LABELS + at for at in labels]]
    both, named = (predicted * gold).sum(0), (predicted + gold).sum(0)
    if average == "micro":
        both, named = both.sum(keepdims=True), named.sum(keepdims=True)
    return float(np.mean(2 * both / np.maximum(named, 1)))


MEASURES: Mapping[str, Mapping[str, Callable[[np.ndarray], float]]] = {
    "ratescore": {"RaTEScore": partial(_column, at=0)},
    "radgraph": {
        "RadGraph F1, entities (RG_E)": partial(_column, at=0),
        "RadGraph F1, entities with or without relation (RG_ER)": partial(_column, at=1),
        "RadGraph F1, entities and relations (RG_bar_ER)": partial(_column, at=2),
    },
    "chexbert": {
        f"CheXbert {average} F1, {len(labels)} labels": partial(_f1, labels=labels, average=average)
        for labels in (range(LABELS), FIVE)
        for average in ("micro", "macro")
    },
}


def model_metrics(model: str, cases: Sequence[Case], scorer: Scorer, seed: int = 0) -> list[ModelMetric]:
    """Each measure of `scorer` over the cases with a report.

    Raises:
      MetricsError: no sample has a report; the package failed, naming the sample.
    """
    compared = [case for case in cases if case.sample.report.strip()]
    if not compared:
        raise MetricsError(f"metric {scorer.name}: no sample has a report to compare with")
    rows = []
    for case in compared:
        try:
            rows.append(scorer.score(" ".join(case.steps), case.sample.report))
        except MetricsError as error:
            raise MetricsError(f"{error} (model {model!r}, sample {case.sample.id!r})") from error
        if len(rows) % TELL_EVERY == 0:
            log.info("%s of %s: %d of %d texts", scorer.name, model, len(rows), len(compared))
    scores = np.array(rows, dtype=np.float64)
    silent = sum(not " ".join(case.steps).strip() for case in compared)
    return [
        ModelMetric(
            model, name, len(rows), silent, measure(scores), *_interval(measure, scores, seed), scorer.version
        )
        for name, measure in MEASURES[scorer.name].items()
    ]


def _interval(measure: Callable[[np.ndarray], float], scores: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile bootstrap over samples; F1 over a corpus is not a mean, so it is measured anew each time."""
    rng = np.random.default_rng(seed)
    count = len(scores)
    drawn = [measure(scores[rng.integers(0, count, count)]) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def model_metrics_markdown(rows: Sequence[ModelMetric]) -> str:
    """The table."""
    return markdown(
        ("measure", "model", "samples", "value", "95 % interval", "no reasoning", "package"),
        [
            (
                row.measure,
                row.model,
                str(row.count),
                f"{row.value:.3f}",
                f"{row.low:.3f} to {row.high:.3f}",
                str(row.silent),
                row.package,
            )
            for row in rows
        ],
    )
