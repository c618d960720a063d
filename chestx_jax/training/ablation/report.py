"""What came out: a table, its JSON, and two pictures."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from chestx_jax.evaluation.tables import markdown
from chestx_jax.training.ablation.measure import Measured

WINDOW = 5  # training steps over which a curve is averaged
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's
CURVES = (
    ("train/reward/process/mean", "process reward (rules)"),
    ("train/reward/outcome/mean", "outcome reward"),
    ("train/response/length_mean", "tokens a completion"),
)
FIGURES = (
    ("accuracy", "accuracy (mean over tasks)"),
    ("score", "offline RadRScore"),
    ("unfounded", "claims without ground"),
)


@dataclass(frozen=True)
class Run:
    """One arm with one seed: the held-out figures, and the rows of its metrics.jsonl."""

    seed: int
    measured: Measured
    rows: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Arm:
    """A way of rewarding, run with several seeds."""

    name: str
    runs: tuple[Run, ...]


def write_report(start: Measured, arms: Sequence[Arm], steps: int, out: Path) -> None:
    """ablation.json, ablation.md, curves.png and scores.png under `out`; prints the table."""
    reached = steps_to_half(arms)
    table = "\n\n".join([scores_table(start, arms), cheats_table(start, arms), _learning(reached, steps)])
    (out / "ablation.md").write_text(table + "\n")
    record = {
        "steps": steps,
        "start": dataclasses.asdict(start),
        "arms": {arm.name: {run.seed: dataclasses.asdict(run.measured) for run in arm.runs} for arm in arms},
        "steps_to_half_of_the_best_gain": reached,
    }
    (out / "ablation.json").write_text(json.dumps(record, indent=2) + "\n")
    draw_curves(arms, out / "curves.png")
    draw_scores(start, arms, out / "scores.png")
    print(table)
    print(f"\nablation.md, ablation.json, curves.png and scores.png are in {out}")


def scores_table(start: Measured, arms: Sequence[Arm]) -> str:
    """Accuracy and offline RadRScore, the mean over seeds with its standard deviation."""
    columns = {
        **{f"{task} %": (lambda m, task=task: 100 * m.accuracy[task]) for task in start.accuracy},
        **{name: (lambda m, name=name: m.radrscore[name]) for name in start.radrscore},
    }
    return _table(start, arms, columns)


def cheats_table(start: Measured, arms: Sequence[Arm]) -> str:
    """Length and signs of a policy that cheats (`measure.Measured`)."""
    return _table(
        start,
        arms,
        {
            "tokens": lambda m: m.tokens,
            "contradictory %": lambda m: 100 * m.contradictory,
            "idle sentences %": lambda m: 100 * m.idle,
            "affirming claims %": lambda m: 100 * m.affirming,
            "unfounded claims %": lambda m: 100 * m.unfounded,
            "above the best hack": lambda m: m.margin,
        },
    )


def steps_to_half(arms: Sequence[Arm]) -> dict[str, list[int | None]]:
    """For each run, the training step at which its process reward (by the rules, mean of `WINDOW` steps) has made
    half of the way from where the arms begin to where the best arm ends; None where it never does."""
    curves = {arm.name: [_smooth(_curve(run, CURVES[0][0])) for run in arm.runs] for arm in arms}
    begin = float(np.mean([curve[0] for own in curves.values() for curve in own]))
    end = max(float(np.mean([curve[-1] for curve in own])) for own in curves.values())
    half = (begin + end) / 2
    return {name: [_first_at(curve, half) for curve in own] for name, own in curves.items()}


def _first_at(curve: Float[np.ndarray, " S"], level: float) -> int | None:
    above = np.flatnonzero(curve >= level)
    return int(above[0]) + WINDOW if len(above) else None


def _learning(reached: Mapping[str, Sequence[int | None]], steps: int) -> str:
    lines = [
        f"- {name}: {', '.join('never' if step is None else str(step) for step in own)}"
        for name, own in reached.items()
    ]
    return (
        f"Step (of {steps}) at which a run's process reward has made half of the best arm's gain, a number a seed:\n\n"
        + "\n".join(lines)
    )


def _table(start: Measured, arms: Sequence[Arm], columns: Mapping) -> str:
    rows = [["start (SFT)", "1", *(_number(column(start)) for column in columns.values())]]
    for arm in arms:
        values = [[column(run.measured) for run in arm.runs] for column in columns.values()]
        rows.append([arm.name, str(len(arm.runs)), *(_mean_and_spread(own) for own in values)])
    return markdown(("arm", "seeds", *columns), rows)


def _mean_and_spread(values: Sequence[float]) -> str:
    mean = _number(float(np.mean(values)))
    if len(values) == 1:  # one seed says nothing of the spread
        return mean
    return f"{mean} ± {_number(float(np.std(values, ddof=1)))}"


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 2 else f"{value:.3f}"


def _curve(run: Run, name: str) -> Float[np.ndarray, " S"]:
    return np.array([row[name] for row in run.rows if name in row])


def _smooth(values: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """The mean of each `WINDOW` values in a row."""
    return np.convolve(values, np.ones(WINDOW) / WINDOW, mode="valid")


def draw_curves(arms: Sequence[Arm], path: Path) -> None:
    """A panel a curve, a line an arm (mean over seeds), a band from the lowest to the highest seed."""
    figure, panels = plt.subplots(1, len(CURVES), figsize=(12, 3.6), layout="constrained")
    for axes, (name, label) in zip(panels, CURVES, strict=True):
        for colour, arm in zip(COLOURS, arms, strict=False):
            curves = np.stack([_smooth(_curve(run, name)) for run in arm.runs])
            x = np.arange(curves.shape[1]) + WINDOW
            axes.plot(x, curves.mean(axis=0), color=colour, label=arm.name)
            axes.fill_between(
                x, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, linewidth=0
            )
        _tidy(axes, label)
        axes.set_xlabel("training step")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(arms), frameon=False
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_scores(start: Measured, arms: Sequence[Arm], path: Path) -> None:
    """A panel a figure, a row an arm: a dot a seed, a bar at their mean, a line where all began."""
    figure, panels = plt.subplots(1, len(FIGURES), figsize=(12, 2.8), layout="constrained", sharey=True)
    for axes, (name, label) in zip(panels, FIGURES, strict=True):
        axes.axvline(_figure_of(start, name), color="0.6", linestyle="--", linewidth=1)
        for row, (colour, arm) in enumerate(zip(COLOURS, arms, strict=False)):
            values = [_figure_of(run.measured, name) for run in arm.runs]
            axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.6)
            axes.plot([float(np.mean(values))], [row], "|", color=colour, markersize=20, markeredgewidth=2.5)
        _tidy(axes, label)
    panels[0].set_yticks(range(len(arms)), [arm.name for arm in arms])
    panels[0].invert_yaxis()
    figure.suptitle("dashed: the model that all arms start from", fontsize=9, color="0.4")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _figure_of(measured: Measured, name: str) -> float:
    return {
        "accuracy": measured.accuracy["mean"],
        "score": measured.radrscore["score"],
        "unfounded": measured.unfounded,
    }[name]


def _tidy(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
