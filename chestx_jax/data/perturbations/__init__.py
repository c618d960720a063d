"""Reasoning with steps that are known to be false: what a process reward model learns from."""

from chestx_jax.data.perturbations.label import (
    CONTRADICTED,
    LABELS,
    SUPPORTED,
    UNVERIFIABLE,
    LabelledStep,
    label_samples,
    labelled_steps,
)
from chestx_jax.data.perturbations.rewrite import KINDS, Donors

__all__ = [
    "CONTRADICTED",
    "KINDS",
    "LABELS",
    "SUPPORTED",
    "UNVERIFIABLE",
    "Donors",
    "LabelledStep",
    "label_samples",
    "labelled_steps",
]
