"""The released predictions' accuracy as a table and plots."""

from collections.abc import Sequence

from chestx_jax.evaluation.page.parts import Cell, Plot, Table
from chestx_jax.evaluation.page.plots import Point, Series, dots
from chestx_jax.evaluation.page.scores import percent
from chestx_jax.evaluation.released import RATESCORE, ReleasedRow


def table(rows: Sequence[ReleasedRow]) -> Table:
    """One row a task and model."""
    cells: list[list[Cell | str]] = [
        [
            row.task,
            row.model,
            str(row.count),
            Cell(row.unpublishable, "quiet") if row.published is None else percent(row.published),
            percent(row.strict),
            f"{percent(row.low)} to {percent(row.high)}",
            percent(row.majority),
            Cell(percent(row.shortcut), title=row.shortcut_name),
            Cell("⚠ beaten without the image", "bad") if row.beaten else "",
            str(row.unparsed),
        ]
        for row in sorted(rows, key=lambda row: row.task)
    ]
    columns = ("Task", "Model", "Samples", "Authors' rule %", "Strict rule %", "95 % interval")
    return Table(
        "Accuracy",
        (*columns, "Majority prior %", "Shortcut %", "", "No answer read"),
        cells,
        "Authors' rule: each family of models is matched by another one. Strict rule: one answer grammar for all.",
        names=2,
    )


def plots(rows: Sequence[ReleasedRow]) -> list[Plot]:
    """One a task of closed questions: every model by the strict rule and the authors', and its baselines."""
    rows = [row for row in rows if row.unpublishable != RATESCORE]
    return [
        _plot(task, [row for row in rows if row.task == task]) for task in dict.fromkeys(r.task for r in rows)
    ]


def _plot(task: str, rows: Sequence[ReleasedRow]) -> Plot:
    series = [
        Series("text-only shortcut", [Point(row.shortcut) for row in rows], reference=True),
        Series("majority prior", [Point(row.majority) for row in rows], reference=True),
        Series("strict rule", [Point(row.strict, row.low, row.high) for row in rows]),
        Series(
            "authors' rule",
            [Point(row.published) if row.published is not None and row.counted else None for row in rows],
        ),
    ]
    return dots(task, [row.model for row in rows], series, "accuracy, with 95 % interval")
