"""Judged records (see `aggregate`) as input of the offline and the calibrated RadRScore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.data.chat import SUFFIX, parse
from chestx_jax.data.schema import LETTERS, OPTIONS_MARK
from chestx_jax.evaluation.radrscore.probes import Subject
from chestx_jax.evaluation.records import RecordError, text_field
from chestx_jax.rewards.reference import Reference


def reference_of(record: Mapping[str, Any]) -> Reference:
    """The gold side of a judged record: `reason_steps`, `original_report`, the options listed in `question`,
    and `answer` (a bare letter or text, or in answer tags).

    Raises:
      RecordError: naming the record and the field that is missing or of the wrong type.
    """
    place = f"record {record.get('id')!r}"
    steps = record.get("reason_steps")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise RecordError(f"{place}: field 'reason_steps' is missing or no list of strings")
    question, answer = (text_field(record, name, place) for name in ("question", "answer"))
    # the released questions of one model carry the suffix, and again the answer behind it
    _, mark, listed = question.partition(SUFFIX)[0].partition(OPTIONS_MARK)
    options = _options(listed, place) if mark else None
    tagged = parse(answer).answer if "<answer>" in answer else answer.strip()
    if not tagged:
        raise RecordError(f"{place}: field 'answer' holds no answer")
    return Reference.of(steps, text_field(record, "original_report", place), options, tagged)


def _options(listed: str, place: str) -> tuple[str, ...]:
    lines = listed.split("\n")
    for letter, line in zip(LETTERS, lines, strict=False):
        if not line.startswith(f"{letter})"):
            raise RecordError(f"{place}: field 'question': no option {letter}) in line {line!r}")
    return tuple(line[2:].strip() for line in lines)


def subjects_of(records: Sequence[Mapping[str, Any]]) -> list[Subject]:
    """The records with reasoning, for `probes.probe_table`. `other` is the next output of the same model and
    task for another report; records without such a neighbour are left out."""
    read = [(record, parse(record["pred"])) for record in records]
    read = [(record, parsed) for record, parsed in read if parsed.steps]
    groups: dict[tuple[str, str], list[int]] = {}
    for i, (record, _) in enumerate(read):
        groups.setdefault((record["model"], record["task"]), []).append(i)
    subjects = []
    for i, (record, parsed) in enumerate(read):
        group = groups[record["model"], record["task"]]
        at = group.index(i)
        for j in group[at + 1 :] + group[:at]:
            other, steps = read[j][0], read[j][1].steps
            if other["original_report"] != record["original_report"]:
                reference = reference_of(record)
                subjects.append(Subject(record["question"], parsed.steps, parsed.answer, steps, reference))
                break
    return subjects
