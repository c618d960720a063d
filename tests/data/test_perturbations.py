"""False steps: grammatical, known to be false, the same for the same seed."""

import random
from pathlib import Path

import pytest

from chestx_jax.data.perturbations import (
    CONTRADICTED,
    KINDS,
    SUPPORTED,
    UNVERIFIABLE,
    Donors,
    label_samples,
    labelled_steps,
)
from chestx_jax.data.perturbations.rewrite import Gold, rewrite
from tests.data.makers import make_sample

STEPS = (
    "Pleural effusion is present, small, on the left.",
    "Consolidation is present, large, in the right middle lobe.",
    "Pneumothorax is absent.",
    "The consolidation was small and is now large.",
    "So the answer is A, edema is present.",
)
DONORS = Donors.of(
    [("other", "Pneumothorax is seen, moderate, on the right."), ("other", "Pleural effusion is not seen.")]
)


def rewritten(step: str, kind: str) -> str | None:
    return rewrite(step, kind, Gold.of("own", STEPS[:4], ""), DONORS, random.Random(0))


@pytest.mark.parametrize(
    ("step", "kind", "false"),
    [
        (STEPS[0], "negate", "Pleural effusion is absent."),
        (STEPS[0], "side", "Pleural effusion is present, small, on the right."),
        (STEPS[0], "severity", "Pleural effusion is present, large, on the left."),
        (STEPS[0], "foreign", "Pleural effusion is absent."),
        (STEPS[1], "side", "Consolidation is present, large, in the lingula."),
        (STEPS[2], "foreign", "Pneumothorax is present, moderate, on the right."),
        (STEPS[3], "temporal", "The consolidation was large and is now small."),
        ("There is no pneumothorax.", "negate", "There is pneumothorax."),
        ("The left-sided pleural effusion is small.", "side", "The right-sided pleural effusion is small."),
    ],
)
def test_a_step_is_made_false_in_the_words_of_its_reading(step: str, kind: str, false: str) -> None:
    assert rewritten(step, kind) == false


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (STEPS[2], "side"),  # no side
        ("Consolidation is present, moderate, in the lingula.", "severity"),  # between the ends
        ("The pleural effusion is on the right.", "side"),  # becomes true
        ("The heart is wonderful.", "negate"),  # claims nothing
        (STEPS[3], "negate"),  # two states: which one is denied?
    ],
)
def test_what_is_not_known_to_be_false_is_not_made(step: str, kind: str) -> None:
    assert rewritten(step, kind) is None


def test_labels_kinds_and_seed(tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, f"s{i}", reason_steps=STEPS, report="") for i in range(40)]
    labelled = label_samples(samples, seed=0, copies=2)
    assert labelled == label_samples(samples, seed=0, copies=2) != label_samples(samples, seed=1, copies=2)
    assert len(labelled) == 80 and len({sample.id for sample in labelled}) == 80
    steps = [step for sample in labelled for step in labelled_steps(sample)]
    assert {step.label for step in steps} == {SUPPORTED, CONTRADICTED, UNVERIFIABLE}
    for sample in labelled:
        assert sample.reason_steps == tuple(step.text for step in labelled_steps(sample))
        for gold, step in zip(STEPS, labelled_steps(sample), strict=True):
            assert (step.text == gold) == (step.label != CONTRADICTED)
            assert (step.kind in KINDS) == (step.label == CONTRADICTED)
            assert (step.label == UNVERIFIABLE) == (gold == STEPS[4])


def test_a_claim_weighs_as_much_where_it_is_false_as_where_it_is_true(tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, f"s{i}", reason_steps=STEPS[:1], report="") for i in range(60)]
    samples += [make_sample(tmp_path, f"t{i}", reason_steps=(STEPS[2],), report="") for i in range(60)]
    steps = [step for sample in label_samples(samples, seed=0) for step in labelled_steps(sample)]
    affirmed = [step for step in steps if step.claim == "pleural effusion present"]
    true, false = (sum(s.weight for s in affirmed if s.label == label) for label in (SUPPORTED, CONTRADICTED))
    assert false > 5 and abs(true - false) <= 1
