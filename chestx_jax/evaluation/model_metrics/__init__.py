"""Metrics that are trained models, through their own packages: RaTEScore, RadGraph and CheXbert."""

from chestx_jax.evaluation.model_metrics.scorer import PACKAGES, Scorer, open_scorers
from chestx_jax.evaluation.model_metrics.scores import (
    NOTE,
    ModelMetric,
    model_metrics,
    model_metrics_markdown,
)
from chestx_jax.evaluation.text_metrics import MetricsError

__all__ = [
    "NOTE",
    "PACKAGES",
    "MetricsError",
    "ModelMetric",
    "Scorer",
    "model_metrics",
    "model_metrics_markdown",
    "open_scorers",
]
