"""The released predictions' accuracy as text: the published grid, each row beside its baselines, warnings."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from chestx_jax.evaluation.released import JUDGED, RATESCORE, ReleasedRow
from chestx_jax.evaluation.tables import markdown

_SUFFIXES = ("_test_option", "_option")  # of the released file names; they tell nothing


def released_markdown(rows: Sequence[ReleasedRow]) -> str:
    """Everything, one part after the other."""
    notes = "\n".join(f"- {note}" for note in released_notes(rows)) or "- none"
    return (
        "Accuracy in %, by the authors' own matching rules:\n\n"
        f"{_grid(rows)}\n\n"
        f"`{_cannot(JUDGED)}`: {JUDGED}; `{_cannot(RATESCORE)}`: scored by {RATESCORE}; "
        "neither can be computed from the predictions.\n\n"
        "By the answer grammar, beside what needs no image, in %:\n\n"
        f"{_detail(rows)}\n\n"
        "`!`: the shortcut or the majority is above the model.\n\n"
        f"Warnings:\n\n{notes}"
    )


def _cannot(why: str) -> str:
    return {JUDGED: "judge", RATESCORE: "rate"}[why]


def _task(row: ReleasedRow) -> str:
    for suffix in _SUFFIXES:
        if row.task.endswith(suffix) and not row.task.endswith("_no_option"):
            return row.task.removesuffix(suffix)
    return row.task


def _published(row: ReleasedRow) -> str:
    if row.published is None:
        return _cannot(row.unpublishable)
    percent = f"{100 * row.published:.1f}"
    return percent if row.counted == row.count else f"{percent} of {row.counted}"


def _grid(rows: Sequence[ReleasedRow]) -> str:
    tasks = list(dict.fromkeys(_task(row) for row in rows))
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        cells[row.model][_task(row)] = _published(row)
    return markdown(
        ("model", *tasks), [(model, *(of.get(task, "") for task in tasks)) for model, of in cells.items()]
    )


def _detail(rows: Sequence[ReleasedRow]) -> str:
    header = ("model", "task", "samples", "authors' rule", "strict rule", "95 % interval", "no answer read")
    return markdown(
        (*header, "majority", "best shortcut", ""),
        [
            (
                row.model,
                _task(row),
                str(row.count),
                _published(row),
                f"{100 * row.strict:.1f}",
                f"{100 * row.low:.1f} to {100 * row.high:.1f}",
                str(row.unparsed),
                f"{100 * row.majority:.1f}",
                f"{100 * row.shortcut:.1f} {row.shortcut_name}",
                "!" if row.beaten else "",
            )
            for row in rows
        ],
    )


def released_notes(rows: Sequence[ReleasedRow]) -> list[str]:
    """What a reader of the tables must know, one sentence each."""
    return [*_sizes(rows), *(note for row in rows for note in _row_notes(row))]


def _sizes(rows: Sequence[ReleasedRow]) -> Iterator[str]:
    by_task: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_task[_task(row)][row.count].append(row.model)
    for task, sizes in by_task.items():
        if len(sizes) > 1:
            told = "; ".join(f"{count}: {', '.join(models)}" for count, models in sorted(sizes.items()))
            yield f"{task}: the models were tested on sets of different size ({told})"


def _row_notes(row: ReleasedRow) -> Iterator[str]:
    name = f"{row.model}, {_task(row)}"
    if row.empty:
        yield f"{name}: {row.empty} of {row.count} predictions are empty"
    if row.published is not None and row.counted < row.count:
        yield f"{name}: the authors' rule reads an answer in {row.counted} of {row.count} predictions only"
    if row.published is not None and row.counted and abs(row.published - row.strict) >= 0.01:
        yield (
            f"{name}: the authors' rule gives {100 * row.published:.1f} %, the strict rule "
            f"{100 * row.strict:.1f} %"
        )
    if row.beaten:
        best = max((row.shortcut, row.shortcut_name), (row.majority, "majority"))
        own = max(row.published or 0.0, row.strict)
        rule = " by the strict rule" if row.published is None else ""
        yield f"{name}: {best[1]} without the image {100 * best[0]:.1f} %, the model {100 * own:.1f} %{rule}"
