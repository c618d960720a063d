"""Figures of a process reward model on cases worked out by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from chestx_jax.data.perturbations import CONTRADICTED, SUPPORTED, LabelledStep
from chestx_jax.evaluation.step_scores import (
    JudgedSample,
    auroc,
    calibration_error,
    first_error_accuracy,
    step_scores,
)


def judged(*steps: tuple[str, int, str, float]) -> JudgedSample:
    """(claim, label, kind, P(contradicted)) a step."""
    labelled = tuple(LabelledStep("", label, kind, claim) for claim, label, kind, _ in steps)
    return JudgedSample("s", labelled, np.array([[1 - p, p, 0.0] for *_, p in steps]))


def test_auroc_is_that_of_scikit_learn_with_ties_and_weights() -> None:
    rng = np.random.default_rng(0)
    false, true = rng.integers(3, 9, 40) / 10, rng.integers(0, 7, 60) / 10
    weights = rng.random(60)
    expected = roc_auc_score(
        [1] * 40 + [0] * 60, np.append(false, true), sample_weight=np.append(np.ones(40), weights)
    )
    assert auroc(false, true, weights) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # two bins: 0.9 said, 1/2 true; 0.2 said, 0 true
    found = calibration_error(np.array([0.9, 0.9, 0.2, 0.2]), np.array([1.0, 0, 0, 0]), np.ones(4))
    assert found == pytest.approx((2 * 0.4 + 2 * 0.2) / 4)


def test_the_first_error_must_be_found_and_none_where_there_is_none() -> None:
    fine, false = ("a", SUPPORTED, "gold", 0.1), ("a", CONTRADICTED, "side", 0.9)
    missed, alarm = ("a", CONTRADICTED, "side", 0.2), ("a", SUPPORTED, "gold", 0.8)
    cases = [judged(fine, false), judged(fine, fine), judged(missed, false), judged(alarm, false)]
    assert [first_error_accuracy([case]) for case in cases] == [1, 1, 0, 0]


def test_that_a_claim_is_rare_earns_nothing() -> None:
    """A blind model that calls every affirmed finding false: right most of the time, and worth 1/2."""
    steps = [("edema present", CONTRADICTED, "negate", 0.9)] * 9 + [("edema present", SUPPORTED, "gold", 0.9)]
    steps += [("edema absent", SUPPORTED, "gold", 0.1)] * 90 + [("edema absent", CONTRADICTED, "negate", 0.1)]
    row = step_scores([judged(*steps)])["kinds"]["negate"]
    assert row["auroc"] == pytest.approx(0.5) and row["false"] == 10
