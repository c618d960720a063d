"""Score rows to the tables and plots of a page."""

from collections.abc import Sequence

from chestx_jax.evaluation.calibration import Calibration
from chestx_jax.evaluation.comparison import Score
from chestx_jax.evaluation.judging import Agreement
from chestx_jax.evaluation.model_metrics import NOTE, ModelMetric
from chestx_jax.evaluation.offline_scores import COMPONENTS, OfflineRow
from chestx_jax.evaluation.open_answers import OpenScore
from chestx_jax.evaluation.page.parts import Cell, Plot, Table
from chestx_jax.evaluation.page.plots import Point, Series, calibration, dots
from chestx_jax.evaluation.radrscore import RadRScore
from chestx_jax.evaluation.text_metrics import TextScore

OFFLINE_NOTE = (
    "The offline RadRScore follows fixed rules over extracted findings. It is not the RadRScore of the "
    "paper, which GPT-4o judges, and the two must not be compared. Brackets: 95 % bootstrap interval."
)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def accuracy(rows: Sequence[Score]) -> Table:
    """Each accuracy beside the majority prior and the best text-only shortcut."""
    cells: list[list[Cell | str]] = []
    for row in rows:
        warned = row.beaten
        cells.append(
            [
                row.task,
                row.model,
                str(row.count),
                Cell(percent(row.accuracy), "bad" if warned else ""),
                f"{percent(row.low)} to {percent(row.high)}",
                percent(row.majority),
                Cell(f"{percent(row.shortcut)}", title=row.shortcut_name),
                Cell("⚠ beaten without the image", "bad") if warned else Cell("", "quiet"),
                Cell(str(row.unparsed), "" if row.unparsed else "quiet"),
            ]
        )
    columns = ("Task", "Model", "Samples", "Accuracy %", "95 % interval", "Majority prior %", "Shortcut %")
    note = (
        "Majority prior: always the most frequent answer. Shortcut: the best of several baselines that read "
        "questions and other samples' answers but never see an image (leave-one-out). A prediction in which "
        "no answer is read counts as wrong. An open question (anomaly) is right only with the exact set of "
        "labels."
    )
    return Table("Accuracy", (*columns, "", "No answer read"), cells, note, names=2)


def _interval(row: OfflineRow | RadRScore, name: str) -> str:
    low, high = row.intervals[name]
    return f"{vars(row)[name]:.3f} [{low:.3f}, {high:.3f}]"


def radrscore(rows: Sequence[RadRScore], judge: str, agreement: Sequence[Agreement]) -> Table:
    """The RadRScore of the paper, as the judge gave it."""
    told = " ".join(one.sentence() for one in agreement)
    return Table(
        f"RadRScore, {judge}",
        (
            "Task",
            "Model",
            "Judged",
            *(name.capitalize() for name in COMPONENTS),
            "RadRScore",
            "Malformed judgments",
        ),
        [
            [
                row.task,
                row.model,
                str(row.n),
                *(_interval(row, name) for name in (*COMPONENTS, "score")),
                Cell(str(row.invalid), "" if row.invalid else "quiet"),
            ]
            for row in rows
        ],
        f"Malformed judgments are left out of the means. Brackets: 95 % bootstrap interval. {told}".strip(),
        names=2,
    )


def offline(rows: Sequence[OfflineRow]) -> Table:
    """The RadRScore by rules."""
    return Table(
        "Offline RadRScore",
        (
            "Task",
            "Model",
            "Samples",
            *(name.capitalize() for name in COMPONENTS),
            "Offline RadRScore",
            "No reasoning",
        ),
        [
            [
                row.task,
                row.model,
                str(row.count),
                *(_interval(row, name) for name in (*COMPONENTS, "score")),
                Cell(str(row.silent), "" if row.silent else "quiet"),
            ]
            for row in rows
        ],
        OFFLINE_NOTE,
        names=2,
    )


def open_answers(scores: Sequence[OpenScore]) -> list[Table]:
    """Means by model, and by label."""
    summary = [
        [
            one.model,
            str(one.count),
            f"{one.precision:.3f}",
            f"{one.recall:.3f}",
            f"{one.f1:.3f}",
            f"{one.low:.3f} to {one.high:.3f}",
            f"{one.exact:.3f}",
            str(one.from_text),
        ]
        for one in scores
    ]
    labels = [
        [
            label.label,
            one.model,
            str(label.gold),
            str(label.predicted),
            str(label.both),
            f"{label.precision:.2f}" if label.predicted else "–",
            f"{label.recall:.2f}" if label.gold else "–",
            f"{label.f1:.2f}",
        ]
        for one in scores
        for label in one.labels
    ]
    labels.sort(key=lambda row: row[0])
    note = (
        "Sets of findings, mean over samples: sides, places and degrees left out, no credit for related "
        "findings. Where no answer is read, the findings that the whole text states count as named."
    )
    return [
        Table(
            "Open answers: findings named",
            (
                "Model",
                "Samples",
                "Precision",
                "Recall",
                "F1",
                "95 % interval of F1",
                "Same set",
                "No answer read",
            ),
            summary,
            note,
        ),
        Table(
            "Open answers by CheXpert label",
            ("Label", "Model", "In gold", "Predicted", "In both", "Precision", "Recall", "F1"),
            labels,
            names=2,
        ),
    ]


def text_metrics(scores: Sequence[TextScore]) -> Table:
    return Table(
        "Word overlap with the gold reasoning",
        ("Model", "Samples", "BLEU", "ROUGE-1", "ROUGE-2", "ROUGE-L", "95 % interval of ROUGE-L"),
        [
            [
                one.model,
                str(one.count),
                f"{one.bleu:.1f}",
                *(f"{x:.3f}" for x in (one.rouge_1, one.rouge_2, one.rouge_l)),
                f"{one.low:.3f} to {one.high:.3f}",
            ]
            for one in scores
        ],
        "How alike the texts sound, not whether they agree: blind to negation. " + scores[0].signature,
    )


def model_metrics(rows: Sequence[ModelMetric]) -> Table:
    return Table(
        "Trained metrics of the reasoning",
        ("Measure", "Model", "Samples", "Value", "95 % interval", "No reasoning"),
        [
            [
                row.measure,
                row.model,
                str(row.count),
                f"{row.value:.3f}",
                f"{row.low:.3f} to {row.high:.3f}",
                Cell(str(row.silent), "" if row.silent else "quiet"),
            ]
            for row in rows
        ],
        f"{NOTE} By {', '.join(dict.fromkeys(row.package for row in rows))}.",
        names=2,
    )


def accuracy_plot(rows: Sequence[Score]) -> Plot:
    """Accuracy of the models with intervals, the two baselines as bars."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    at = {(row.task, row.model): row for row in rows}
    models = list(dict.fromkeys(row.model for row in rows))
    first = {row.task: row for row in reversed(rows)}
    series = [
        Series("text-only shortcut", [Point(first[task].shortcut) for task in tasks], reference=True),
        Series("majority prior", [Point(first[task].majority) for task in tasks], reference=True),
        *(
            Series(
                model,
                [
                    Point(r.accuracy, r.low, r.high) if (r := at.get((task, model))) else None
                    for task in tasks
                ],
            )
            for model in models
        ),
    ]
    caption = "A point to the left of a bar: the images, or the model, added nothing to the question's text."
    return dots("Accuracy against shortcuts", tasks, series, "accuracy, with 95 % interval", caption)


def radrscore_plot(rows: Sequence[RadRScore], judge: str) -> Plot:
    """The parts of the judge's RadRScore."""
    return _parts_plot("Parts of the RadRScore", rows, "RadRScore", f"{judge[0].upper()}{judge[1:]}.")


def offline_plot(rows: Sequence[OfflineRow]) -> Plot:
    """The parts of the offline RadRScore."""
    return _parts_plot("Parts of the offline RadRScore", rows, "offline RadRScore", "By rules.")


def _parts_plot(title: str, rows: Sequence[OfflineRow] | Sequence[RadRScore], name: str, by: str) -> Plot:
    """By model, over all tasks where there are several."""
    shown = [row for row in rows if row.task == "all"] or list(rows)
    parts = (*COMPONENTS, "score")
    series = [
        Series(row.model, [Point(vars(row)[part], *row.intervals[part]) for part in parts]) for row in shown
    ]
    tasks = "all tasks" if shown[0].task == "all" else shown[0].task
    caption = f"{by} Mean over {tasks}. Each part alone can be gamed: read them together."
    return dots(title, [*COMPONENTS, name], series, "mean, with 95 % interval", caption)


def calibration_plot(rows: Sequence[Calibration]) -> Plot:
    errors = "; ".join(f"{row.model}: {row.error:.3f} over {row.count} answers" for row in rows)
    return calibration(
        "Calibration",
        [(row.model, row.bins) for row in rows],
        f"Larger points hold more answers. Expected calibration error: {errors}.",
    )
