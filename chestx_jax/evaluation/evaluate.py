"""From samples and predictions to tables, a page to browse and a picture sheet."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chestx_jax.data.jsonl import atomic_text
from chestx_jax.data.schema import Sample
from chestx_jax.evaluation.accuracy import Case
from chestx_jax.evaluation.accuracy import judge as judge_answers
from chestx_jax.evaluation.calibration import Calibration, calibrate
from chestx_jax.evaluation.comparison import Score, compare, score_markdown, score_notes
from chestx_jax.evaluation.judging import Agreement, Judge, Judged, judge_models
from chestx_jax.evaluation.model_metrics import (
    NOTE,
    ModelMetric,
    Scorer,
    model_metrics,
    model_metrics_markdown,
    open_scorers,
)
from chestx_jax.evaluation.offline_scores import (
    OfflineRow,
    Scored,
    offline_markdown,
    offline_table,
    score_offline,
)
from chestx_jax.evaluation.open_answers import OpenScore, open_markdown, open_score
from chestx_jax.evaluation.page import Item, Plot, Table, released_page, render, scores
from chestx_jax.evaluation.page.cases import Rows, items
from chestx_jax.evaluation.page.pictures import Album
from chestx_jax.evaluation.predictions import PredictionError, read_predictions
from chestx_jax.evaluation.radrscore import RadRScore
from chestx_jax.evaluation.radrscore import score_markdown as radrscore_markdown
from chestx_jax.evaluation.released import ReleasedRow, released_table
from chestx_jax.evaluation.released_report import released_markdown, released_notes
from chestx_jax.evaluation.sheet import write_sheet
from chestx_jax.evaluation.tables import write_scores
from chestx_jax.evaluation.text_metrics import TextScore, text_markdown, text_score

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """All that is measured; each list is empty where it does not apply.

    Attributes:
      judge: who gave the `radrscore`; "" where nobody was asked.
    """

    accuracy: list[Score]
    judge: str
    radrscore: list[RadRScore]
    agreement: list[Agreement]
    offline: list[OfflineRow]
    open_answers: list[OpenScore]
    text: list[TextScore]
    model_metrics: list[ModelMetric]
    calibration: list[Calibration]


def read_models(paths: Sequence[Path]) -> dict[str, Rows]:
    """Predictions by model, which is called after its file, or by its path where two files share a name.

    Raises:
      PredictionError: a file that cannot be used, or one that is given twice.
    """
    if len(set(paths)) < len(paths):
        raise PredictionError("a predictions file is given twice")
    same = Counter(path.stem for path in paths)
    return {
        path.stem if same[path.stem] == 1 else str(path.with_suffix("")): read_predictions(path)
        for path in paths
    }


def evaluate_models(
    samples: Sequence[Sample],
    models: Mapping[str, Rows],
    out: Path,
    *,
    cases: int,
    judge: Judge | None = None,
    text_metrics: bool = False,
    metrics: Sequence[str] = (),
    metrics_python: str = sys.executable,
) -> Results:
    """Write report.html, scores.md, scores.json and cases.png under `out`, with a judge judged.jsonl too; print
    the tables.

    Args:
      models: predictions by model, as `read_models` gives them.
      cases: how many the picture sheet has (of the first model); the page has all.
      judge: gives the RadRScore of the paper, beside the offline one.
      text_metrics: BLEU and ROUGE too.
      metrics: of the reasoning against the report, names of `model_metrics.PACKAGES`.
      metrics_python: the interpreter that has their packages.

    Raises:
      PredictionError: when no prediction of a model belongs to a sample.
      MetricsError: `text_metrics` or `metrics` without their packages.
      AggregateError, JudgeError, LLMError: see `judge_models`.
    """
    missing = {model: _missing(model, samples, rows) for model, rows in models.items()}
    answered = {model: judge_answers(samples, rows) for model, rows in models.items()}
    scored = score_offline(answered)
    with open_scorers(metrics, metrics_python) as scorers:
        judged = judge_models(judge, answered, scored) if judge else None
        results = _measure(answered, scored, judged, models, text_metrics, scorers)
    notes = [*_gaps(missing, len(samples)), *score_notes(results.accuracy)]
    table = "\n\n".join([_markdown(results), "\n".join(f"- {note}" for note in notes)]).strip()
    rules = {m: dict(Counter(case.rule for case in own).most_common()) for m, own in answered.items()}
    write_scores(
        out,
        "Scores",
        table,
        {**vars(results), "answer_rules": rules, "without_prediction": missing, "notes": notes},
    )
    write_sheet(pick(next(iter(answered.values())), cases), out / "cases.png")
    if judged:
        _write_records(out / "judged.jsonl", judged)
    album = Album(out)
    shown = items(answered, scored, models, album, judged)
    _write_page(out, results, notes, answered, shown)
    if album.missing:
        log.warning(
            "%d images are not on the page, the first: %s", len(album.missing), album.missing[0].missing
        )
    print(table)
    print(f"\nreport.html, scores.md, scores.json and cases.png are in {out}")
    return results


def evaluate(samples: Sequence[Sample], predictions: Rows, out: Path, *, cases: int) -> Results:
    """`evaluate_models` for one model."""
    return evaluate_models(samples, {"model": predictions}, out, cases=cases)


def evaluate_released(predictions: Path, out: Path) -> list[ReleasedRow]:
    """The published accuracy table from the authors' released predictions: report.html, scores.md, scores.json.

    Raises:
      RecordError: naming file, line and field.
    """
    rows = released_table(predictions)
    table = released_markdown(rows)
    write_scores(out, "Released predictions", table, {"released": rows})
    page = render(
        "Released predictions of ChestX-Reasoner and others",
        [released_page.table(rows)],
        released_page.plots(rows),
        [],
        warnings=released_notes(rows),
        subtitle="Accuracy by the authors' own matching rules, beside strict matching and baselines without images",
    )
    (out / "report.html").write_text(page, encoding="utf-8")
    print(table)
    print(f"\nreport.html, scores.md and scores.json are in {out}")
    return rows


def _missing(model: str, samples: Sequence[Sample], rows: Rows) -> list[str]:
    missing = [sample.id for sample in samples if sample.id not in rows]
    if len(missing) == len(samples):
        raise PredictionError(
            f"none of the predictions of {model!r} has the id of a sample; is it another data set?"
        )
    return missing


def _write_records(path: Path, judged: Judged) -> None:
    """What the judge said, one record a line: `launch.evaluate --judged` reads it again."""
    with atomic_text(path) as file:
        for records in judged.records.values():
            for record in records.values():
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _gaps(missing: Mapping[str, Sequence[str]], count: int) -> list[str]:
    return [
        f"{model}: {len(ids)} of {count} samples have no prediction and count as wrong."
        for model, ids in missing.items()
        if ids
    ]


def _measure(
    answered: Mapping[str, Sequence[Case]],
    scored: Mapping[str, Sequence[Scored | None]],
    judged: Judged | None,
    models: Mapping[str, Rows],
    text_metrics: bool,
    scorers: Sequence[Scorer],
) -> Results:
    text = [text_score(model, cases) for model, cases in answered.items()] if text_metrics else []
    asked = [open_score(model, cases) for model, cases in answered.items()]
    calibrated = [calibrate(model, cases, models[model]) for model, cases in answered.items()]
    return Results(
        accuracy=compare(answered),
        judge=judged.judge if judged else "",
        radrscore=judged.rows if judged else [],
        agreement=judged.agreement if judged else [],
        offline=offline_table(answered, scored),
        open_answers=[one for one in asked if one],
        text=[one for one in text if one],
        model_metrics=[
            row
            for scorer in scorers
            for model, cases in answered.items()
            for row in model_metrics(model, cases, scorer)
        ],
        calibration=[one for one in calibrated if one],
    )


def _markdown(results: Results) -> str:
    parts = [score_markdown(results.accuracy)]
    if results.radrscore:
        told = "\n".join(one.sentence() for one in results.agreement)
        table = radrscore_markdown(results.radrscore)
        parts.append(f"RadRScore, {results.judge}:\n\n{table}\n\n{told}".strip())
    if results.offline:
        parts.append(f"Offline RadRScore (by rules, not GPT-4o's):\n\n{offline_markdown(results.offline)}")
    if results.open_answers:
        parts.append(f"Open answers, sets of findings:\n\n{open_markdown(results.open_answers)}")
    if results.text:
        parts.append(f"Word overlap with the gold reasoning:\n\n{text_markdown(results.text)}")
    if results.model_metrics:
        parts.append(f"Trained metrics. {NOTE}\n\n{model_metrics_markdown(results.model_metrics)}")
    return "\n\n".join(parts)


def _parts(results: Results) -> tuple[list[Table], list[Plot]]:
    tables, plots = [scores.accuracy(results.accuracy)], [scores.accuracy_plot(results.accuracy)]
    if results.radrscore:
        tables.append(scores.radrscore(results.radrscore, results.judge, results.agreement))
        plots.append(scores.radrscore_plot(results.radrscore, results.judge))
    if results.offline:
        tables.append(scores.offline(results.offline))
        plots.append(scores.offline_plot(results.offline))
    if results.open_answers:
        tables += scores.open_answers(results.open_answers)
    if results.text:
        tables.append(scores.text_metrics(results.text))
    if results.model_metrics:
        tables.append(scores.model_metrics(results.model_metrics))
    if results.calibration:
        plots.append(scores.calibration_plot(results.calibration))
    return tables, plots


def _write_page(
    out: Path,
    results: Results,
    notes: Sequence[str],
    answered: Mapping[str, Sequence[Case]],
    shown: Sequence[Item],
) -> None:
    tables, plots = _parts(results)
    sources = ", ".join(dict.fromkeys(case.sample.source for case in next(iter(answered.values()))))
    page = render(
        f"Evaluation of {', '.join(answered)}",
        tables,
        plots,
        shown,
        warnings=[note.replace(" %", "\u00a0%") for note in notes],
        subtitle=f"{len(shown)} samples of {sources}",
    )
    (out / "report.html").write_text(page, encoding="utf-8")


def pick(judged: Sequence[Case], count: int, seed: int = 0) -> list[Case]:
    """`count` cases for the sheet: drawn at random, the tasks in turn, in the order of the tasks."""
    rng = np.random.default_rng(seed)
    by_task: dict[str, list[Case]] = {}
    for i in rng.permutation(len(judged)):
        by_task.setdefault(judged[i].sample.task, []).append(judged[i])
    queues = [by_task[task] for task in dict.fromkeys(case.sample.task for case in judged)]
    longest = max(map(len, queues))
    turns = [queue[i] for i in range(longest) for queue in queues if i < len(queue)][:count]
    order = [case.sample.task for case in judged]
    return sorted(turns, key=lambda case: order.index(case.sample.task))
