"""Tables that a program prints and writes beside its JSON."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chestx_jax.evaluation.accuracy import Accuracy


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal too; numbers to the right, the first column left."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def accuracy_markdown(rows: Sequence[Accuracy]) -> str:
    """The accuracy table, in percent."""
    return markdown(
        ("task", "samples", "accuracy %", "95 % interval", "majority prior %", "no answer read"),
        [
            (
                row.task,
                str(row.count),
                f"{100 * row.accuracy:.1f}",
                f"{100 * row.low:.1f} to {100 * row.high:.1f}",
                f"{100 * row.majority:.1f}",
                str(row.unparsed),
            )
            for row in rows
        ],
    )


def write_scores(out: Path, title: str, table: str, scores: dict[str, Any]) -> None:
    """`scores.md` and `scores.json` under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "scores.md").write_text(f"# {title}\n\n{table}\n")
    plain = json.dumps(scores, indent=2, default=dataclasses.asdict)
    (out / "scores.json").write_text(plain + "\n")
