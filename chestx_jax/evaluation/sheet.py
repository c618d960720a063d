"""A picture sheet of cases: image, question, reasoning, answer."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from chestx_jax.data.images import load_image
from chestx_jax.evaluation.accuracy import Case

RIGHT, WRONG = "#1a7f37", "#cf222e"
IMAGE_SIZE = 256
WIDTH = {"normal": 72, "bold": 60}  # characters of text a line


def write_sheet(cases: Sequence[Case], path: Path, columns: int = 2) -> None:
    """Draw `cases` into one PNG, `columns` beside each other, each with all its images."""
    rows = -(-len(cases) // columns)
    figure, axes = plt.subplots(rows, 2 * columns, figsize=(9 * columns, 3.4 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, case in enumerate(cases):
        row, column = divmod(i, columns)
        _draw_images(axes[row, 2 * column], case)
        _draw_text(axes[row, 2 * column + 1], case)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.985, bottom=0.01, wspace=0.03, hspace=0.12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_images(axis: Axes, case: Case) -> None:
    images = [load_image(case.sample.root / name, IMAGE_SIZE) for name in case.sample.images]
    for i, image in enumerate(images):
        left = i * (IMAGE_SIZE + 8)
        axis.imshow(image, extent=(left, left + IMAGE_SIZE, IMAGE_SIZE, 0))
    axis.set_xlim(0, len(images) * (IMAGE_SIZE + 8) - 8)
    axis.set_ylim(IMAGE_SIZE, 0)
    axis.set_anchor("E")
    axis.set_title(case.sample.id, fontsize=9, loc="right")


def _draw_text(axis: Axes, case: Case) -> None:
    blocks = [
        (case.sample.question, "black", "bold"),
        (" ".join(case.steps) or case.prediction, "#444444", "normal"),
        (
            f"answered {case.answer!r}, gold {case.sample.answer!r} ({case.sample.answer_text})",
            RIGHT if case.correct else WRONG,
            "bold",
        ),
    ]
    height = 1.0
    for text, colour, weight in blocks:
        lines = [line for part in text.splitlines() for line in textwrap.wrap(part, WIDTH[weight]) or [""]]
        axis.text(
            0,
            height,
            "\n".join(lines),
            color=colour,
            weight=weight,
            va="top",
            fontsize=8,
            transform=axis.transAxes,
        )
        height -= 0.055 * len(lines) + 0.03
