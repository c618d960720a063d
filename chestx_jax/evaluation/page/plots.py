"""Plots as inline SVG that take their colours from the page, so that they are right in dark and in light."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from chestx_jax.evaluation.page.parts import Plot

# Stand-ins: colours that no plot uses otherwise, each replaced by a variable of page.css.
_INK, _QUIET, _GRID, _PANEL = "#010101", "#020202", "#030303", "#040404"
_SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05")
_VARIABLES = {_INK: "ink", _QUIET: "quiet", _GRID: "grid", _PANEL: "panel"} | dict(
    zip(_SERIES, "abcde", strict=True)
)
_MARKERS = "osD^v"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "page",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _QUIET,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "figure.facecolor": "none",
    "grid.color": _GRID,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "ytick.labelcolor": _INK,
    "ytick.left": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
_WIDTH = 4.2  # inches
_NAMES = 34  # characters of a row's name


@dataclass(frozen=True)
class Point:
    """A value with its interval, at one row of a dot plot."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """One colour and marker of a dot plot: a point a row, None where there is none. `reference`: drawn as a
    tick behind the points, for what they are compared with."""

    name: str
    points: Sequence[Point | None]
    reference: bool = False


def dots(title: str, rows: Sequence[str], series: Sequence[Series], label: str, caption: str = "") -> Plot:
    """A row a name, a point a series, with intervals; values between 0 and 1."""
    points = [one for one in series if not one.reference]
    lanes = max(1, len(points))
    height = 0.9 + 0.16 * ((len(series) + 1) // 2) + len(rows) * max(0.34, 0.15 * lanes + 0.12)
    with _figure(height) as (figure, axes):
        references = [one for one in series if one.reference]
        for i, one in enumerate(references):
            _ticks(axes, one, i)
        for i, one in enumerate(points):
            _points(axes, one, i, (i - (lanes - 1) / 2) * min(0.22, 0.7 / lanes))
        axes.set_yticks(range(len(rows)), [_short(row) for row in rows])
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.grid(axis="y", visible=False)
        _unit(axes.set_xlim, axes.set_xticks)
        axes.set_xlabel(label)
        _legend(figure, len(series))
        return Plot(title, _svg(figure, title), caption)


def calibration(
    title: str, bins: Sequence[tuple[str, Sequence[tuple[float, float, int]]]], caption: str
) -> Plot:
    """A reliability diagram: a line a model through (mean confidence, accuracy, count) of its bins."""
    with _figure(4.0) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
        for i, (name, points) in enumerate(bins):
            most = max(count for *_, count in points)
            x, y, count = zip(*points, strict=True)
            colour = _SERIES[i % len(_SERIES)]
            axes.plot(x, y, color=colour, linewidth=1.5)
            sizes = [20 + 90 * n / most for n in count]
            axes.scatter(
                x, y, s=sizes, color=colour, marker=_MARKERS[i % len(_MARKERS)], label=_short(name), zorder=3
            )
        _unit(axes.set_xlim, axes.set_xticks)
        _unit(axes.set_ylim, axes.set_yticks)
        axes.set_xlabel("probability that the model gave its answer")
        axes.set_ylabel("share of right answers")
        _legend(figure, len(bins) + 1)
        return Plot(title, _svg(figure, title), caption)


def _points(axes: Axes, one: Series, i: int, lane: float) -> None:
    there = [(row + lane, point) for row, point in enumerate(one.points) if point is not None]
    colour = _SERIES[i % len(_SERIES)]
    for y, point in there:
        if point.low is not None and point.high is not None:
            axes.plot([point.low, point.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="round")
    axes.plot(
        [point.value for _, point in there],
        [y for y, _ in there],
        color=colour,
        marker=_MARKERS[i % len(_MARKERS)],
        markersize=6,
        linestyle="none",
        label=_short(one.name),
        zorder=3,
    )


def _ticks(axes: Axes, one: Series, i: int) -> None:
    """The first kind of reference is a thick bar, the second a thin one."""
    there = [(point.value, row) for row, point in enumerate(one.points) if point is not None]
    values, rows = zip(*there, strict=True) if there else ((), ())
    look: dict[str, Any] = {
        "color": _INK if i == 0 else _QUIET,
        "marker": "|",
        "markeredgewidth": 2.4 if i == 0 else 1.0,
        "linestyle": "none",
    }
    axes.plot(
        values,
        rows,
        markersize=20,
        zorder=2,
        **look,
    )
    axes.plot([], [], markersize=11, label=_short(one.name), **look)


def _unit(limits: Any, ticks: Any) -> None:
    limits(-0.02, 1.02)
    ticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def _legend(figure: Any, count: int) -> None:
    figure.legend(
        loc="outside upper left", ncols=min(2, count), handletextpad=0.4, columnspacing=1.4, markerscale=0.8
    )


def _short(name: str) -> str:
    return name if len(name) <= _NAMES else name[: _NAMES - 1] + "…"


@contextmanager
def _figure(height: float) -> Iterator[tuple[Any, Axes]]:
    with matplotlib.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(_WIDTH, height), layout="constrained")
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def _svg(figure: Any, title: str) -> str:
    """The figure's svg element: colours become the page's variables, ids are made the plot's own."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    own = "plot-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + "-"
    svg = re.sub(r'\bid="', f'id="{own}', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', lambda found: found[1] + own, svg)
    name = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
