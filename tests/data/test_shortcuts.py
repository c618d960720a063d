"""Text-only baselines on hand-made test sets."""

from chestx_jax.data.schema import LETTERS, Sample, question_text
from chestx_jax.data.shortcuts import (
    accuracy,
    chance,
    label_prior,
    learned_accuracies,
    majority,
    option_order,
    option_prior,
    shortcut_accuracies,
)


def sample(stem: str, options: tuple[str, ...] | None, right: str) -> Sample:
    letter = right if options is None else LETTERS[options.index(right)]
    return Sample("i", "s", None, "t", "single", (), question_text(stem, options), options, letter, right)


def binary(label: str, right: str) -> Sample:
    return sample(f"Does this chest X-ray show {label}?", ("Yes", "No"), right)


def test_majority_counts_the_sample_itself() -> None:
    samples = [binary("edema", "Yes")] * 3 + [binary("edema", "No")] * 2
    assert majority(samples) == ["A"] * 5 and accuracy(samples, majority(samples)) == 0.6


def test_label_prior_learns_each_label_from_the_others() -> None:
    samples = [binary("edema", "Yes")] * 4 + [binary("fracture", "No")] * 4
    assert accuracy(samples, label_prior(samples)) == 1.0
    odd = [*samples, binary("edema", "No")]
    assert label_prior(odd)[-1] == "A"  # its own answer is not looked at


def test_a_balanced_set_scores_half_not_zero() -> None:
    samples = [binary("pneumonia", "Yes"), binary("pneumonia", "No")] * 20
    assert accuracy(samples, label_prior(samples)) == accuracy(samples, option_prior(samples)) == 0.5


def test_a_label_of_its_own_falls_back_on_the_whole_set() -> None:
    samples = [binary("fracture", "No")] * 5 + [binary("edema", "Yes")]
    assert label_prior(samples)[-1] == "B"


def test_progressions_fall_to_the_label() -> None:
    three = ("stable", "worsening", "improving")
    samples = [sample("progression of edema.", three, "worsening")] * 3
    samples += [sample("progression of pneumonia.", three, "improving")] * 3
    assert label_prior(samples) == ["B"] * 3 + ["C"] * 3


def test_option_prior_prefers_the_text_that_is_right_when_offered() -> None:
    stem = "Which finding is in this chest X-ray?"
    often = [sample(stem, ("fracture", "support devices"), "support devices") for _ in range(5)]
    samples = [*often, sample(stem, ("support devices", "edema"), "support devices")]
    assert accuracy(samples, option_prior(samples)) == 1.0
    assert option_prior([*samples, sample(stem, ("fracture", "support devices"), "fracture")])[-1] == "B"


def test_option_order_finds_the_set_in_column_order() -> None:
    stem = "Which findings are in this chest X-ray?"
    samples = [
        sample(stem, ("edema, cardiomegaly", "cardiomegaly, edema"), "cardiomegaly, edema"),
        sample(stem, ("lung lesion, fracture", "fracture, lung lesion"), "lung lesion, fracture"),
        sample(stem, ("tube, wire", "wire, tube"), "wire, tube"),  # not CheXpert's labels: nothing to go by
    ]
    assert option_order(samples)[:2] == ["B", "A"]


def test_open_questions_and_the_list_of_all() -> None:
    samples = [sample("Which findings are in this chest X-ray?", None, "edema")] * 3
    assert label_prior(samples) == option_prior(samples) == option_order(samples) == ["edema"] * 3
    assert [s.name for s in shortcut_accuracies(samples)] == ["label prior", "option prior", "option order"]


def test_chance_is_guessing_among_the_options() -> None:
    samples = [binary("edema", "Yes"), sample("Which finding?", ("a", "b", "c", "d"), "a")]
    assert chance(samples) == 0.375
    assert chance([sample("Which findings are in this chest X-ray?", None, "edema")]) == 0.0


def test_a_reader_who_studied_other_samples() -> None:
    stem = "Which finding is in this chest X-ray?"
    known = [sample(stem, ("fracture", "edema"), "edema")] * 3
    asked = [sample(stem, ("edema", "fracture"), "edema"), sample(stem, ("edema", "fracture"), "fracture")]
    learned = learned_accuracies(known, asked)
    assert [(s.name, s.accuracy) for s in learned] == [
        ("learned label prior", 0.5),
        ("learned option prior", 0.5),
    ]
    assert learned_accuracies(known, asked[:1])[1].accuracy == 1.0
    unseen = [binary("edema", "No"), sample("Which findings?", None, "edema")]
    assert [s.accuracy for s in learned_accuracies(known, unseen)] == [0.0, 0.0]
