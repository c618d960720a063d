"""Judged predictions to the items of a page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.data.chat import parse, predicted_option
from chestx_jax.data.schema import LETTERS, Sample
from chestx_jax.evaluation.accuracy import Case
from chestx_jax.evaluation.calibration import probability
from chestx_jax.evaluation.judging import Judged, Record
from chestx_jax.evaluation.offline_scores import COMPONENTS, Scored
from chestx_jax.evaluation.open_answers import score_case
from chestx_jax.evaluation.page.evidence import gold_spans, gold_text, judged_spans
from chestx_jax.evaluation.page.parts import Item, Span, Text
from chestx_jax.evaluation.page.pictures import Album
from chestx_jax.evaluation.radrscore import Judgment, Malformed, judgment

Rows = Mapping[str, Mapping[str, Any]]
"""A predictions file: rows by sample id."""


def items(
    models: Mapping[str, Sequence[Case]],
    scored: Mapping[str, Sequence[Scored | None]],
    rows: Mapping[str, Rows],
    album: Album,
    judged: Judged | None = None,
) -> list[Item]:
    """One item a sample, with a text a model. All models' cases are of the same samples in the same order."""
    found = []
    records = judged.records if judged else {}
    for i, first in enumerate(next(iter(models.values()))):
        sample = first.sample
        own = {model: scored[model][i] for model in models}
        found.append(
            Item(
                id=sample.id,
                group=sample.task,
                question=sample.question,
                answer=_gold_answer(sample),
                pictures=[album.picture(path) for path in sample.image_paths],
                references=_references(sample, own),
                captions=("reference image", "new image") if _is_pair(sample) else (),
                texts=[
                    _text(m, models[m][i], own[m], rows[m].get(sample.id), records.get(m, {}).get(sample.id))
                    for m in models
                ],
            )
        )
    return found


def _is_pair(sample: Sample) -> bool:
    """With more images than two, which is of which study is not told."""
    return sample.task == "temporal" and len(sample.images) == 2


def _gold_answer(sample: Sample) -> str:
    return sample.answer if sample.options is None else f"{sample.answer}) {sample.answer_text}"


def _answer(case: Case) -> str:
    """What was answered, with the option's text where it names one."""
    if case.answer is None:
        return ""
    options = case.sample.options
    letter = predicted_option(case.answer, options) if options else None
    return case.answer if letter is None or options is None else f"{letter}) {options[LETTERS.index(letter)]}"


def _references(sample: Sample, scored: Mapping[str, Scored | None]) -> list[Text]:
    """Always both, gold reasoning first: evidence points at them by number."""
    gold = gold_text(sample) or "(the sample has no gold reasoning)"
    spans = gold_spans(sample, scored) if sample.reason_steps else []
    return [
        Text("Gold reasoning", gold, spans),
        Text("Report", sample.report or "(the sample has no report)"),
    ]


def _text(
    model: str,
    case: Case,
    scored: Scored | None,
    row: Mapping[str, Any] | None,
    record: Record | None,
) -> Text:
    said = judgment(record) if record is not None else None
    numbers: dict[str, float] = {}
    if isinstance(said, Judgment):
        numbers["RadRScore"] = said.score
        numbers |= {name: vars(said)[name] for name in COMPONENTS}
    if scored is not None:
        numbers["offline RadRScore"] = scored.result.score
        numbers |= {f"offline {name}": vars(scored.result)[name] for name in COMPONENTS}
    if case.sample.options is None:
        numbers["F1 of findings"] = score_case(case).f1
    confidence = probability(case, row)
    if confidence is not None and math.isfinite(confidence):
        numbers["answer probability"] = confidence
    if scored is not None:
        spans = judged_spans(scored)
    else:
        spans = [Span(start, end) for start, end in parse(case.prediction).spans]
    facts = (
        {} if case.rule in ("strict", "answer_only") else {"answer read by rule": case.rule.replace("_", " ")}
    )
    if isinstance(said, Malformed):
        facts["RadRScore"] = f"malformed: {'; '.join(said.problems)}"
    if row is None:
        facts["prediction"] = "missing"
    elif row.get("finished") is False:
        facts["prediction"] = "cut off at the token limit"
    return Text(model, case.prediction, spans, _answer(case), case.correct, numbers, facts)
