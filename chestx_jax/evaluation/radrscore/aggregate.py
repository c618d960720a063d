"""From judged records to RadRScore, whoever judged them.

A record is one sample of one model with the judge's findings and counts:
`id, task, model, correct ("yes"/"no"), gt_key_finding {key_conclusion: [..]}, pred_key_finding
{key_conclusion: [..]}, recall_res {recalled_count}, precision_res {correct_count}, efficiency
{effective_count, ineffective_count}`.

The rules, and where the authors' own script (eval/reasoning_eval.py of their repository) differs:

* factuality = correct_count / predicted findings, completeness = recalled_count / gold findings,
  effectiveness = effective_count / (effective_count + ineffective_count); the score is their mean. Counts are
  used, not the lists beside them, as by the authors: 7 counts in the 718 released judgments disagree.
* A zero denominator scores 0 and stays in the mean (both).
* A judgment that lacks a part is malformed: counted, and left out of all three means. The authors leave it
  out of the sample count too, but their script has by then added what it read before the missing part (first
  completeness, then factuality) to the sums; `RadRScore.as_published` repeats that. A misspelt key
  ("key_conclusions") is a missing one.
* A count above its denominator (1 released judgment: 2 correct of 1 finding) is malformed here; the authors'
  script lets the ratio exceed 1, and so does `as_published`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestx_jax.evaluation.accuracy import bootstrap_interval
from chestx_jax.evaluation.records import RecordError, read_records, text_field
from chestx_jax.evaluation.tables import markdown

COMPONENTS = ("factuality", "completeness", "effectiveness")
_READ_ORDER = ("completeness", "factuality", "effectiveness")  # of the authors' script


class AggregateError(Exception):
    """Judgments of which no score can be made."""


@dataclass(frozen=True)
class Judgment:
    """One judged sample; the components are between 0 and 1."""

    id: str
    model: str
    task: str
    correct: bool
    factuality: float
    completeness: float
    effectiveness: float

    @property
    def score(self) -> float:
        """RadRScore of the sample."""
        return (self.factuality + self.completeness + self.effectiveness) / 3


@dataclass(frozen=True)
class Malformed:
    """A judgment that cannot be scored; `problems` name field and fault, `read` is what could be read."""

    id: str
    model: str
    task: str
    problems: tuple[str, ...]
    read: Mapping[str, float]


@dataclass(frozen=True)
class RadRScore:
    """A row: one model on one task.

    Attributes:
      n: judgments in the means; `invalid` more were malformed.
      intervals: 95 % bootstrap interval over samples, by name of component and "score".
      as_published: the score by the authors' sums (see the module), over the same records.
      accuracy: share of right answers among the `n`; alone it correlates 0.50 with the sample's RadRScore.
    """

    model: str
    task: str
    n: int
    invalid: int
    factuality: float
    completeness: float
    effectiveness: float
    score: float
    intervals: Mapping[str, tuple[float, float]]
    as_published: float
    accuracy: float


def judgment(record: Mapping[str, Any]) -> Judgment | Malformed:
    """Scores one record.

    Raises:
      RecordError: `id`, `model`, `task` or `correct` is missing; a judge cannot spoil those.
    """
    place = f"record {record.get('id')!r}"
    identity, model, task, correct = (
        text_field(record, k, place) for k in ("id", "model", "task", "correct")
    )
    read: dict[str, float] = {}
    problems = []
    for component, part in zip(_READ_ORDER, (_completeness, _factuality, _effectiveness), strict=True):
        try:
            read[component] = part(record)
        except _PartError as error:
            problems.append(str(error))
            continue
        if read[component] > 1:
            problems.append(f"{component} {read[component]:g} is above 1")
    if problems:
        return Malformed(identity, model, task, tuple(problems), read)
    return Judgment(identity, model, task, correct="yes" in correct.lower(), **read)


class _PartError(Exception):
    """A part of a judgment is missing or of the wrong type."""


def _completeness(record: Mapping[str, Any]) -> float:
    return _ratio(_count(record, "recall_res", "recalled_count"), _findings(record, "gt_key_finding"))


def _factuality(record: Mapping[str, Any]) -> float:
    return _ratio(_count(record, "precision_res", "correct_count"), _findings(record, "pred_key_finding"))


def _effectiveness(record: Mapping[str, Any]) -> float:
    effective = _count(record, "efficiency", "effective_count")
    return _ratio(effective, effective + _count(record, "efficiency", "ineffective_count"))


def _ratio(count: int, total: int) -> float:
    return count / total if total else 0.0


def _findings(record: Mapping[str, Any], name: str) -> int:
    part = record.get(name)
    found = part.get("key_conclusion") if isinstance(part, Mapping) else None
    if not isinstance(found, list):
        raise _PartError(f"{name}: no list 'key_conclusion'")
    return len(found)


def _count(record: Mapping[str, Any], name: str, key: str) -> int:
    part = record.get(name)
    count = part.get(key) if isinstance(part, Mapping) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise _PartError(f"{name}: no count {key!r}")
    return count


def aggregate(records: Iterable[Mapping[str, Any]], seed: int = 0) -> list[RadRScore]:
    """One row a model and task, in order of first appearance.

    Raises:
      AggregateError: every judgment of a model and task is malformed, or a sample of one was judged twice.
      RecordError: a record without id, model, task or correct.
    """
    groups: dict[tuple[str, str], dict[str, Judgment | Malformed]] = {}
    for record in records:
        one = judgment(record)
        group = groups.setdefault((one.model, one.task), {})
        if one.id in group:
            raise AggregateError(
                f"model {one.model!r}, task {one.task!r}: sample {one.id!r} was judged twice"
            )
        group[one.id] = one
    return [_row(model, task, list(group.values()), seed) for (model, task), group in groups.items()]


def _row(model: str, task: str, judged: Sequence[Judgment | Malformed], seed: int) -> RadRScore:
    valid = [one for one in judged if isinstance(one, Judgment)]
    if not valid:
        raise AggregateError(f"model {model!r}, task {task!r}: all {len(judged)} judgments are malformed")
    values = {name: np.array([getattr(one, name) for one in valid]) for name in (*COMPONENTS, "score")}
    means = {name: float(value.mean()) for name, value in values.items()}
    return RadRScore(
        model=model,
        task=task,
        n=len(valid),
        invalid=len(judged) - len(valid),
        **means,
        intervals={name: bootstrap_interval(value, seed) for name, value in values.items()},
        as_published=_as_published(judged),
        accuracy=sum(one.correct for one in valid) / len(valid),
    )


def _as_published(judged: Sequence[Judgment | Malformed]) -> float:
    """The authors' sums: a malformed judgment adds what came before its first missing part, and no sample."""
    total, samples = 0.0, 0
    for one in judged:
        read = {name: getattr(one, name) for name in _READ_ORDER} if isinstance(one, Judgment) else one.read
        for name in _READ_ORDER:
            if name not in read:
                break
            total += read[name]
        else:
            samples += 1
    return total / (3 * samples) if samples else 0.0


def read_judged(path: Path) -> list[dict[str, Any]]:
    """Judged records of a JSONL file, gzipped or not.

    Raises:
      RecordError: naming file, line and field, where a record is no object or lacks id, model, task or
        correct.
    """
    records = []
    for place, record in read_records(path):
        for name in ("id", "model", "task", "correct"):
            text_field(record, name, place)
        records.append(record)
    if not records:
        raise RecordError(f"{path}: holds no records")
    return records


def score_markdown(rows: Sequence[RadRScore]) -> str:
    """The RadRScore table."""

    def cell(row: RadRScore, name: str) -> str:
        low, high = row.intervals[name]
        return f"{getattr(row, name):.3f} ({low:.3f} to {high:.3f})"

    header = ("model", "task", "judged", "malformed", *COMPONENTS, "RadRScore", "authors' sums", "accuracy %")
    return markdown(
        header,
        [
            (
                row.model,
                row.task,
                str(row.n),
                str(row.invalid),
                *(cell(row, name) for name in (*COMPONENTS, "score")),
                f"{row.as_published:.3f}",
                f"{100 * row.accuracy:.1f}",
            )
            for row in rows
        ],
    )
