"""Models on tasks, each beside what needs no image: the rows of the score table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chestx_jax.data.schema import Sample
from chestx_jax.data.shortcuts import Shortcut, shortcut_accuracies
from chestx_jax.evaluation.accuracy import Accuracy, Case, accuracy_table
from chestx_jax.evaluation.tables import markdown


@dataclass(frozen=True)
class Score(Accuracy):
    """An accuracy with its model and the best text-only shortcut on the same samples.

    Attributes:
      beaten: the shortcut or the majority prior is above the model. Never for a task of open questions: right
        there is only the exact set of labels.
    """

    model: str
    shortcut: float
    shortcut_name: str
    beaten: bool


def compare(models: Mapping[str, Sequence[Case]]) -> list[Score]:
    """Rows by task and, within it, by model; the last task is "all" when there are several.

    Each model's cases must be of the same samples in the same order.
    """
    samples = [case.sample for case in next(iter(models.values()))]
    best = _best(samples)
    rows = [
        _score(model, row, best[row.task]) for model, cases in models.items() for row in accuracy_table(cases)
    ]
    order = list(best)
    return sorted(rows, key=lambda row: order.index(row.task))


def _best(samples: Sequence[Sample]) -> dict[str, tuple[Shortcut, bool]]:
    """The best shortcut by task and whether the task is open; "all" is the mean over samples."""
    best: dict[str, tuple[Shortcut, bool]] = {}
    right = 0.0
    for task in dict.fromkeys(sample.task for sample in samples):
        own = [sample for sample in samples if sample.task == task]
        top = max(shortcut_accuracies(own), key=lambda shortcut: shortcut.accuracy)
        best[task] = (top, all(sample.options is None for sample in own))
        right += top.accuracy * len(own)
    best["all"] = (Shortcut("best of each task", right / len(samples)), False)
    return best


def _score(model: str, row: Accuracy, best: tuple[Shortcut, bool]) -> Score:
    shortcut, is_open = best
    beaten = not is_open and max(shortcut.accuracy, row.majority) > row.accuracy
    return Score(
        **vars(row), model=model, shortcut=shortcut.accuracy, shortcut_name=shortcut.name, beaten=beaten
    )


def score_notes(rows: Sequence[Score]) -> list[str]:
    """A sentence for each task in which a baseline that sees no image beats a model."""
    notes = []
    for task in dict.fromkeys(row.task for row in rows if row.beaten):
        own = [row for row in rows if row.task == task]
        value, name = max(
            (own[0].shortcut, f"a text-only shortcut ({own[0].shortcut_name})"),
            (own[0].majority, "the majority prior"),
        )
        beaten = ", ".join(f"{row.model} {100 * row.accuracy:.1f} %" for row in own if row.beaten)
        notes.append(f"{task}: {name} gets {100 * value:.1f} % right without the image; {beaten}.")
    return notes


def score_markdown(rows: Sequence[Score]) -> str:
    """The score table, in percent; "!" where something that needs no image is above the model."""
    header = (
        "task",
        "model",
        "samples",
        "accuracy %",
        "95 % interval",
        "majority prior %",
        "best shortcut %",
    )
    return markdown(
        (*header, "", "no answer read"),
        [
            (
                row.task,
                row.model,
                str(row.count),
                f"{100 * row.accuracy:.1f}",
                f"{100 * row.low:.1f} to {100 * row.high:.1f}",
                f"{100 * row.majority:.1f}",
                f"{100 * row.shortcut:.1f} {row.shortcut_name}",
                "!" if row.beaten else "",
                str(row.unparsed),
            )
            for row in rows
        ],
    )
