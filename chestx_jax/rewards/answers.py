"""Answers that name findings, as sets of concepts.

An answer is split at commas; each part becomes the concepts that it says are present (`chestx_jax.radiology`,
so "small left pleural effusion" and "pleural effusions" are the same). A part that claims nothing present but
denies something, and the plain words "normal" and "no finding", become "no finding". A part in which no
concept is known stands for itself in lower case, so that it can still be met word for word.

Sides, places and degrees are left out; a child does not stand for its parent ("consolidation" is not "lung
opacity").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from chestx_jax.data.chat import label_set
from chestx_jax.data.schema import NO_FINDING
from chestx_jax.radiology import extract_findings

_NOTHING = re.compile(
    r"(?:(?:a|no|the|is|chest|x-?ray|radiograph)\s+)*(?:normal|none|no (?:acute )?findings?)\b.*"
)


@dataclass(frozen=True)
class SetScore:
    """Overlap of one answer with the gold answer; between 0 and 1."""

    precision: float
    recall: float
    f1: float


def concepts(answer: str) -> frozenset[str]:
    """The concepts that a comma-joined answer claims; see the module."""
    return frozenset(concept for part in label_set(answer) for concept in _part(part))


def _part(part: str) -> Iterable[str]:
    if _NOTHING.fullmatch(part):
        return {NO_FINDING}
    asserted = [finding for finding in extract_findings(part) if finding.asserted]
    present = {finding.concept for finding in asserted if finding.polarity == "present"}
    if present:
        return present
    return {NO_FINDING} if asserted else {part}


def set_score(predicted: frozenset[str], gold: frozenset[str]) -> SetScore:
    """Precision, recall and F1 of one set against another; 0 where a denominator is."""
    return SetScore(*ratios(len(predicted & gold), len(predicted), len(gold)))


def ratios(both: int, predicted: int, gold: int) -> tuple[float, float, float]:
    """Precision, recall and F1 from counts; 0 where a denominator is."""
    total = predicted + gold
    return (
        both / predicted if predicted else 0.0,
        both / gold if gold else 0.0,
        2 * both / total if total else 0.0,
    )
