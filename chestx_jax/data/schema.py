"""What moves through the data room: a Study (images, report, labels) and a Sample (one question about one).

`Sample` mirrors the JSON object of one line of a samples file; `jsonl.py` reads and writes it, `check_sample`
holds its rules.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chestx_jax.storage import is_cloud, to_path

TASKS = ("binary", "single", "multiple", "anomaly", "temporal")
CLOSED_TASKS = ("binary", "single", "multiple", "temporal")
"""Tasks whose question offers lettered options; "anomaly" asks for an open, comma-joined answer."""

LABELS = (
    "atelectasis",
    "cardiomegaly",
    "consolidation",
    "edema",
    "enlarged cardiomediastinum",
    "fracture",
    "lung lesion",
    "lung opacity",
    "pleural effusion",
    "pneumonia",
    "pneumothorax",
    "support devices",
)
"""The 12 labels of the binary task (ChestX-Reasoner, arXiv 2504.20930)."""
NO_FINDING = "no finding"
TEMPORAL_LABELS = ("consolidation", "edema", "pleural effusion", "pneumonia", "pneumothorax")
PROGRESSIONS = ("stable", "worsening", "improving")
LETTERS = string.ascii_uppercase
OPTIONS_MARK = " Options:\n"
"""Stands between the question proper and its lettered options."""

FIELDS = (
    "id",
    "study",
    "patient",
    "source",
    "task",
    "images",
    "question",
    "options",
    "answer",
    "answer_text",
    "reason_steps",
    "report",
)
"""The fields of a line, in the order in which they are written."""


class SampleError(ValueError):
    """Bad samples. `problems` lists all, each with file, line (or id) and field; the message shows 20."""

    SHOWN = 20

    def __init__(self, problems: list[str]):
        self.problems = tuple(problems)
        lines = list(problems[: self.SHOWN])
        if len(problems) > self.SHOWN:
            lines.append(f"... and {len(problems) - self.SHOWN} more")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Study:
    """One examination of one patient, as a collection publishes it.

    Attributes:
      id: the collection's own study id, unique within `source`.
      images: every view, in the order in which the model sees them; absolute or relative to the working
        directory.
      labels: lower-case label -> 1 present, 0 absent, -1 uncertain; None or missing: not mentioned.
      progression: label -> one of PROGRESSIONS, against `prior`.
      reason_steps: the exact reasoning when it is known (phantoms); elsewhere it is mined later.
      extra: the source's own columns worth keeping.
    """

    id: str
    source: str
    images: tuple[Path, ...]
    findings: str = ""
    impression: str = ""
    patient: str | None = None
    split: str | None = None
    labels: Mapping[str, int | None] = field(default_factory=dict)
    progression: Mapping[str, str] = field(default_factory=dict)
    prior: "Study | None" = None
    reason_steps: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def report(self) -> str:
        """ "FINDINGS: .. IMPRESSION: ..", leaving out a section that is empty."""
        sections = (("FINDINGS", self.findings.strip()), ("IMPRESSION", self.impression.strip()))
        return " ".join(f"{name}: {text}" for name, text in sections if text)


@dataclass(frozen=True)
class Sample:
    """One question about one study: one JSON object a line.

    Attributes:
      images: paths relative to `root`, absolute, or in a bucket (gs://..).
      options: the options' texts without their letters, None for an open question.
      answer: the letter of the right option; for an open question the answer itself.
      answer_text: the text of the right option; for an open question the answer itself.
      reason_steps: empty in an answer-only sample.
      root: the directory of the JSONL file, absolute once read; never written. `Path()`: not tied to a file
        yet, `write_samples` then takes the images to be relative to the file it writes.
      extra: fields of the line that the schema does not know; written back as they came.
    """

    id: str
    study: str
    patient: str | None
    source: str
    task: str
    images: tuple[str, ...]
    question: str
    options: tuple[str, ...] | None
    answer: str
    answer_text: str
    reason_steps: tuple[str, ...] = ()
    report: str = ""
    root: Path = field(default_factory=Path)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_paths(self) -> tuple[Path, ...]:
        """The images' paths as they can be opened."""
        if not is_cloud(self.root) and not any(map(is_cloud, self.images)):
            return tuple(self.root / image for image in self.images)
        # a bucket knows no "..": `to_path` works it out
        return tuple(to_path(image if is_cloud(image) else f"{self.root}/{image}") for image in self.images)


def question_text(stem: str, options: tuple[str, ...] | None) -> str:
    """`stem` followed by its lettered options, one a line (the wording of the published benchmark)."""
    if options is None:
        return stem
    return stem + OPTIONS_MARK + "\n".join(f"{LETTERS[i]}) {option}" for i, option in enumerate(options))


def check_sample(sample: Sample) -> list[tuple[str, str]]:
    """The rules beyond the types, as (field, what is wrong) pairs; empty when all is well."""
    wrong: list[tuple[str, str]] = []
    for name in ("id", "study", "source", "question", "answer", "answer_text"):
        if not str(vars(sample)[name]).strip():
            wrong.append((name, "is empty"))
    if sample.task not in TASKS:
        wrong.append(("task", f"{sample.task!r} is none of {', '.join(TASKS)}"))
    if not sample.images:
        wrong.append(("images", "is empty"))
    if any(not image.strip() for image in sample.images):
        wrong.append(("images", "holds an empty path"))
    if any(not step.strip() for step in sample.reason_steps):
        wrong.append(("reason_steps", "holds an empty step"))
    if sample.options is None:
        if sample.task in CLOSED_TASKS:
            wrong.append(("options", f"is null, but a {sample.task} question needs options"))
        elif OPTIONS_MARK in sample.question:
            wrong.append(("options", "is null, but the question lists options"))
        return wrong
    return wrong + _check_options(sample, sample.options)


def _check_options(sample: Sample, options: tuple[str, ...]) -> list[tuple[str, str]]:
    # An empty distractor is let through: the released benchmark has one. An empty answer_text is an error.
    wrong: list[tuple[str, str]] = []
    if not 2 <= len(options) <= len(LETTERS):
        wrong.append(("options", f"has {len(options)} entries, expected 2 to {len(LETTERS)}"))
    if len(set(options)) != len(options):
        wrong.append(("options", "holds an option twice"))
    stem, mark, _ = sample.question.partition(OPTIONS_MARK)
    if not mark:
        wrong.append(("question", f"does not list its options after {OPTIONS_MARK!r}"))
    elif question_text(stem, options) != sample.question:
        listed = sample.question.count("\n")
        wrong.append(
            ("options", f"{len(options)} options differ from the {listed} lines listed in the question")
        )
    letters = LETTERS[: len(options)]
    if len(sample.answer) != 1 or sample.answer not in letters:
        wrong.append(("answer", f"{sample.answer!r} is none of the option letters {', '.join(letters)}"))
    elif options[letters.index(sample.answer)] != sample.answer_text:
        expected = options[letters.index(sample.answer)]
        wrong.append(("answer_text", f"{sample.answer_text!r} is not option {sample.answer}, {expected!r}"))
    return wrong
