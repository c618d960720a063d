"""The published accuracy table from the authors' released predictions, beside what can be trusted.

A file of released predictions has one JSON object a line: `model, task, index, question, answer,
answer_content, pred`. The authors score each family of models by another rule (eval/accuracy_eval.py of their
repository), repeated here to the letter, quirks included:

* "ours": the text in the first one-line `<answer>` after the last word "assistant" is part of the gold
  letter, in lower case. A prediction without such a tag leaves the denominator.
* "qwenvl": the gold letter is part of the text in the first `<answer>` (of what follows `<answer>` when it is
  never closed, of the whole prediction without a tag), case-sensitive: any capital A in the words then counts
  as "A". Where the prompt leaked into the prediction, its own empty `<answer></answer>` comes first, the
  extracted answer is empty, and an empty answer leaves the denominator: 0 of 0 for qwenvl7b, which the script
  reports as 0 %.
* "chexagent3b": the gold letter is part of the prediction, case-sensitive.
* all others: GPT-4o was asked; open questions: RaTEScore. Neither can be computed from the file, and none is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from chestx_jax.data.chat import SUFFIX, match, parse
from chestx_jax.data.schema import LETTERS, OPTIONS_MARK, Sample
from chestx_jax.data.shortcuts import accuracy, majority, shortcut_accuracies
from chestx_jax.evaluation.accuracy import bootstrap_interval
from chestx_jax.evaluation.records import RecordError, read_records, text_field

JUDGED = "judged by GPT-4o"
RATESCORE = "RaTEScore"
_TAGGED = re.compile(r"<answer>(.*?)</answer>")  # without DOTALL, as the authors have it
_TAGGED_LINES = re.compile(r"<answer>([\s\S]*?)</answer>")
_OPTION = re.compile(r"([A-Z])\) ?(.*)")
_STEMS = {
    "Does this chest X-ray show": "binary",
    "Which finding is": "single",
    "Which findings are": "multiple",
    "You are given two images": "temporal",
}


@dataclass(frozen=True)
class Released:
    """One released prediction.

    Attributes:
      answer: as released: a letter, or "<answer> B </answer>".
      sample: the question in our schema, without images.
    """

    model: str
    task: str
    answer: str
    pred: str
    sample: Sample


@dataclass(frozen=True)
class ReleasedRow:
    """One model on one of the released test sets; shares are between 0 and 1.

    Attributes:
      published: accuracy by the authors' rule, None where `unpublishable` says why it cannot be computed.
      counted: predictions in the authors' denominator.
      strict: accuracy by the answer grammar (`chestx_jax.data.chat`) over all; `low`, `high` its 95 %
        interval.
      unparsed: predictions in which the grammar found no answer; `empty` of them are empty.
      leaked: predictions that repeat the conversation before the answer.
      majority: always the most frequent answer.
      shortcut: the best text-only baseline's accuracy, `shortcut_name` which.
      beaten: shortcut or majority is above the model, by whichever rule treats the model better; never for
        open questions, where the grammar wants the exact set of labels.
    """

    model: str
    task: str
    count: int
    published: float | None
    unpublishable: str
    counted: int
    strict: float
    low: float
    high: float
    unparsed: int
    empty: int
    leaked: int
    majority: float
    shortcut: float
    shortcut_name: str
    beaten: bool


def read_released(path: Path) -> list[Released]:
    """The predictions of a JSONL file, gzipped or not.

    Raises:
      RecordError: naming file, line and field.
    """
    records: list[Released] = []
    seen: dict[str, str] = {}
    for place, record in read_records(path):
        one = _released(record, place)
        if one.sample.id in seen:
            before = seen[one.sample.id]
            raise RecordError(f"{place}: field 'index': {one.sample.id} was there already, in {before}")
        seen[one.sample.id] = place
        records.append(one)
    if not records:
        raise RecordError(f"{path}: holds no records")
    return records


def _released(record: dict[str, Any], place: str) -> Released:
    model, task, question, answer = (
        text_field(record, name, place) for name in ("model", "task", "question", "answer")
    )
    index, pred = record.get("index"), record.get("pred")
    if not isinstance(index, int) or isinstance(index, bool):
        raise RecordError(f"{place}: field 'index' is missing or not an integer")
    if isinstance(pred, list) and all(isinstance(part, str) for part in pred):
        pred = "\n".join(pred)  # a few files hold the sentences of a report as a list
    if not isinstance(pred, str):
        raise RecordError(f"{place}: field 'pred' is missing, neither a string nor a list of strings")
    tagged = _TAGGED_LINES.fullmatch(answer.strip())
    gold = (tagged[1] if tagged else answer).strip()
    question = question.removesuffix(SUFFIX)
    options = _options(question, place)
    if options is not None and gold not in list(LETTERS[: len(options)]):
        raise RecordError(f"{place}: field 'answer': {gold!r} is none of the {len(options)} options' letters")
    if not gold:
        raise RecordError(f"{place}: field 'answer' is empty")
    sample = Sample(
        id=f"{model}/{task}/{index}",
        study=str(index),
        patient=None,
        source=task,
        task=_kind(question, options),
        images=(),
        question=question,
        options=options,
        answer=gold,
        answer_text=gold if options is None else options[LETTERS.index(gold)],
    )
    return Released(model, task, answer, pred, sample)


def _options(question: str, place: str) -> tuple[str, ...] | None:
    _, mark, listed = question.partition(OPTIONS_MARK)
    if not mark:
        return None
    found = [_OPTION.fullmatch(line) for line in listed.split("\n")]
    if any(one is None or one[1] != LETTERS[i] for i, one in enumerate(found)):
        raise RecordError(f"{place}: field 'question': its options are not lines 'A) ..', 'B) ..' in order")
    return tuple(one[2] for one in found if one)


def _kind(question: str, options: tuple[str, ...] | None) -> str:
    if options is None:
        return "anomaly"
    return next((kind for stem, kind in _STEMS.items() if question.startswith(stem)), "single")


def published_rule(one: Released) -> bool | None:
    """The authors' verdict by their rule for the model's family; None: left out of their denominator."""
    if one.model == "chexagent3b":
        return one.answer in one.pred if one.pred else None
    if "ours" in one.model:
        pred, gold = _first(_TAGGED, one.pred.split("assistant")[-1]), _first(_TAGGED, one.answer)
        return pred.lower() in gold.lower() if pred and gold else None
    tagged = "<answer>" in one.answer and "</answer>" in one.answer
    pred, gold = _qwen_answer(one.pred), _first(_TAGGED, one.answer) if tagged else one.answer
    return gold in pred if pred and gold else None


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return " ".join(found[1].split()) if found else ""


def _qwen_answer(pred: str) -> str:
    if "<answer>" not in pred:
        return pred
    return _first(_TAGGED_LINES, pred) if "</answer>" in pred else pred.split("<answer>")[-1].strip()


def _unpublishable(records: Sequence[Released]) -> str:
    model = records[0].model
    if any(one.sample.options is None for one in records):
        return RATESCORE
    return "" if model == "chexagent3b" or "ours" in model or "qwenvl" in model else JUDGED


def released_table(path: Path, seed: int = 0) -> list[ReleasedRow]:
    """One row a model and task, models and tasks in order of their names.

    Raises:
      RecordError: naming file, line and field.
    """

    def key(one: Released) -> tuple[str, str]:
        return one.model, one.task

    return [_row(list(group), seed) for _, group in groupby(sorted(read_released(path), key=key), key=key)]


def _row(records: Sequence[Released], seed: int) -> ReleasedRow:
    samples = [one.sample for one in records]
    unpublishable = _unpublishable(records)
    verdicts = [] if unpublishable else [published_rule(one) for one in records]
    counted = [verdict for verdict in verdicts if verdict is not None]
    published = None if unpublishable else sum(counted) / max(1, len(counted))
    parsed = [parse(one.pred) for one in records]
    right = np.array([match(p, sample) for p, sample in zip(parsed, samples, strict=True)], dtype=np.float64)
    low, high = bootstrap_interval(right, seed)
    best = max(shortcut_accuracies(samples), key=lambda shortcut: shortcut.accuracy)
    prior = accuracy(samples, majority(samples))
    return ReleasedRow(
        model=records[0].model,
        task=records[0].task,
        count=len(records),
        published=published,
        unpublishable=unpublishable,
        counted=len(counted),
        strict=float(right.mean()),
        low=low,
        high=high,
        unparsed=sum(p.answer is None for p in parsed),
        empty=sum(not one.pred.strip() for one in records),
        leaked=sum(p.rule.startswith("chat_prefix") for p in parsed),
        majority=prior,
        shortcut=best.accuracy,
        shortcut_name=best.name,
        beaten=unpublishable != RATESCORE
        and max(best.accuracy, prior) > max(published or 0.0, float(right.mean())),
    )
