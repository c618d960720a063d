"""How well a process reward model tells false steps from true ones, by kind of falsehood.

Every figure compares false steps with true ones that claim the same (concept and polarity), in equal parts: what is
known without looking, that a finding is rare, earns nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from chestx_jax.data.perturbations import CONTRADICTED, KINDS, SUPPORTED, UNVERIFIABLE, LabelledStep

BINS = 10
IMAGE_KINDS = ("negate", "side", "severity", "foreign")
"""Where the sentence is as likely as the true one, so that only the image can decide. A swapped finding breaks the
order of the reading, and a change told backwards may contradict a step before it."""


@dataclass(frozen=True)
class JudgedSample:
    """A labelled reasoning with the probabilities that the model gives (`models.process_reward.VERDICTS`)."""

    id: str
    steps: tuple[LabelledStep, ...]
    probabilities: Float[np.ndarray, "S 3"]


def false_share(probabilities: Float[np.ndarray, "S 3"]) -> Float[np.ndarray, " S"]:
    """P(contradicted) among the two verdicts on what can be verified."""
    pair = probabilities[:, [SUPPORTED, CONTRADICTED]]
    return pair[:, 1] / np.maximum(pair.sum(axis=1), 1e-12)


def auroc(
    false: Float[np.ndarray, " N"], true: Float[np.ndarray, " M"], weights: Float[np.ndarray, " M"]
) -> float:
    """P(a false step scores above a true one), ties half, true ones drawn by their weights."""
    order = np.argsort(true, kind="stable")
    total = np.append(0.0, np.cumsum(weights[order]))
    below = total[np.searchsorted(true[order], false, side="left")]
    upto = total[np.searchsorted(true[order], false, side="right")]
    return float((below + upto).mean() / 2 / total[-1])


def calibration_error(
    probability: Float[np.ndarray, " N"], outcome: Float[np.ndarray, " N"], weights: Float[np.ndarray, " N"]
) -> float:
    """Expected calibration error of P(false) in ten bins of equal width (Guo et al. 2017, arXiv 1706.04599, eq. 3)."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = [abs(float((weights * (probability - outcome))[bins == one].sum())) for one in range(BINS)]
    return sum(gaps) / float(weights.sum())


def first_error_accuracy(judged: Sequence[JudgedSample]) -> float:
    """Share of reasonings whose first step judged false is the first false one; "none" must be found too (as in
    ProcessBench, arXiv 2412.06559)."""
    hits = []
    for sample in judged:
        called = np.argmax(sample.probabilities, axis=1) == CONTRADICTED
        truly = np.array([step.label == CONTRADICTED for step in sample.steps], bool)
        hits.append(_first(called) == _first(truly))
    return float(np.mean(hits))


def step_scores(judged: Sequence[JudgedSample]) -> dict[str, Any]:
    """The table of a judged file: over all kinds, by kind, and by kind where negation or side decides.

    {"samples", "first_error_accuracy", "verdict_accuracy", "kinds": {name: {"false", "auroc", "calibration_error",
    "recall"}}}; a kind without false steps is left out.
    """
    steps = [step for sample in judged for step in sample.steps]
    probabilities = np.concatenate([sample.probabilities for sample in judged])
    labels = np.array([step.label for step in steps])
    groups: Mapping[str, tuple[str, ...]] = {
        "all": KINDS,
        **{kind: (kind,) for kind in KINDS},
        "image only": IMAGE_KINDS,
    }
    kinds = {
        name: row
        for name, members in groups.items()
        if (row := _kind(steps, false_share(probabilities), members)) is not None
    }
    return {
        "samples": len(judged),
        "steps": dict(
            zip(
                ("supported", "contradicted", "not verifiable"),
                np.bincount(labels, minlength=3).tolist(),
                strict=True,
            )
        ),
        "first_error_accuracy": first_error_accuracy(judged),
        "unverifiable_accuracy": float(
            ((np.argmax(probabilities, axis=1) == UNVERIFIABLE) == (labels == UNVERIFIABLE)).mean()
        ),
        "kinds": kinds,
    }


def table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Lines for a terminal; `scores` are named, e.g. by what the model was shown."""
    lines = []
    for name, one in scores.items():
        lines.append(
            f"{name}: {one['samples']} samples, first error found in {one['first_error_accuracy']:.3f}"
        )
        lines.append(f"  {'kind':12} {'false':>6} {'AUROC':>6} {'ECE':>6} {'recall':>6}")
        lines += [
            f"  {kind:12} {row['false']:6d} {row['auroc']:6.3f} {row['calibration_error']:6.3f} {row['recall']:6.3f}"
            for kind, row in one["kinds"].items()
        ]
    return "\n".join(lines)


def _kind(
    steps: Sequence[LabelledStep], falsehood: Float[np.ndarray, " N"], members: Sequence[str]
) -> dict[str, Any] | None:
    """Figures of the false steps of these kinds against true ones of the same claims, matched by weight."""
    wanted = Counter(step.claim for step in steps if step.kind in members)
    known = Counter(step.claim for step in steps if step.label == SUPPORTED)
    false = np.array([step.kind in members and known[step.claim] > 0 for step in steps])
    if not false.any():
        return None
    weights = np.array(
        [wanted[step.claim] / known[step.claim] if step.label == SUPPORTED else 0.0 for step in steps]
    )
    true = weights > 0
    used = false | true
    return {
        "false": int(false.sum()),
        "auroc": auroc(falsehood[false], falsehood[true], weights[true]),
        "calibration_error": calibration_error(
            falsehood[used], false[used].astype(float), np.where(false, 1.0, weights)[used]
        ),
        "recall": float((falsehood[false] > 0.5).mean()),
    }


def _first(flags: np.ndarray) -> int:
    return int(np.argmax(flags)) if flags.any() else -1
