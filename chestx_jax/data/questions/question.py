"""What a builder returns, and what the builders share: reading a study's labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chestx_jax.data.schema import LABELS, LETTERS, NO_FINDING, PROGRESSIONS, Study

UNUSED = (NO_FINDING, "pleural other")
"""Never asked for by name: "no finding" is an answer, "pleural other" is left out by the paper."""


class QuestionError(ValueError):
    """A study or a task from which no question can be built; the message names study and field."""


@dataclass(frozen=True)
class Question:
    """One question before it is a sample.

    Attributes:
      options: None for an open question.
      answer: the letter, or the open answer itself.
      meaning: the answer in words, for the sentence that closes the reasoning.
      label: the finding that is asked for, where the task asks for one.
      images: other images than the study's own.
      steps: reasoning that only this question needs, after the study's own.
    """

    stem: str
    options: tuple[str, ...] | None
    answer: str
    answer_text: str
    meaning: str
    label: str | None = None
    images: tuple[Path, ...] = ()
    steps: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


def choice(
    stem: str,
    options: tuple[str, ...],
    right: int,
    meaning: str = "",
    *,
    label: str | None = None,
    images: tuple[Path, ...] = (),
    steps: tuple[str, ...] = (),
    extra: Mapping[str, Any] | None = None,
) -> Question:
    """A question with lettered options of which number `right` is the answer."""
    text = options[right]
    return Question(stem, options, LETTERS[right], text, meaning or text, label, images, steps, extra or {})


def ordered(labels: Mapping[str, int | None]) -> list[str]:
    """The labels that may be asked for: the paper's in its order, then any others by name."""
    known = [label for label in LABELS if label in labels]
    return known + sorted(label for label in labels if label not in LABELS and label not in UNUSED)


def with_value(study: Study, value: int) -> list[str]:
    """The labels that may be asked for and have this value."""
    return [label for label in ordered(study.labels) if study.labels[label] == value]


def is_normal(study: Study) -> bool:
    """Whether "no finding" is the right answer: the source says so, or is silent and every label is 0."""
    if study.labels.get(NO_FINDING) is not None:
        return study.labels[NO_FINDING] == 1
    asked = ordered(study.labels)
    return bool(asked) and all(study.labels[label] == 0 for label in asked)


def check_labels(study: Study) -> None:
    """Raises QuestionError when labels or progressions break the schema or contradict each other."""
    where = f"study {study.source}/{study.id}"
    for label, value in study.labels.items():
        if value not in (1, 0, -1, None):
            raise QuestionError(f"{where}: field 'labels': {label!r} is {value!r}, expected 1, 0, -1 or null")
        if label != label.lower() or not label.strip() or "," in label:
            raise QuestionError(
                f"{where}: field 'labels': {label!r} is not a lower-case label without commas"
            )
    if study.labels.get(NO_FINDING) == 1 and (found := with_value(study, 1)):
        raise QuestionError(f"{where}: field 'labels': 'no finding' is 1 and so is {found[0]!r}")
    for label, state in study.progression.items():
        if state not in PROGRESSIONS:
            expected = ", ".join(PROGRESSIONS)
            raise QuestionError(f"{where}: field 'progression': {label!r} is {state!r}, none of {expected}")
    if study.progression and study.prior is None:
        raise QuestionError(f"{where}: field 'prior': missing, but there are progressions")
