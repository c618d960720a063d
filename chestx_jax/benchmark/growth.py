"""How the cost of a step grows with each of its dimensions, beside how the arithmetic does."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from chestx_jax.benchmark.clock import Measured
from chestx_jax.benchmark.jobs import Job


def slope(values: Sequence[float], costs: Sequence[float]) -> float:
    """Of the straight line through the points in logarithms (least squares): 1 when cost grows in proportion."""
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def draw(
    axes: Mapping[str, Sequence[tuple[int, Job]]], found: Mapping[Job, Measured], path: Path
) -> dict[str, dict[str, float]]:
    """One panel an axis at `path`; returns the slopes of the CPU seconds and of the operations by axis."""
    figure, panels = plt.subplots(1, len(axes), figsize=(3.1 * len(axes), 3), layout="constrained")
    slopes = {}
    for panel, (name, points) in zip(panels, axes.items(), strict=True):
        values = [value for value, _ in points]
        cpu = [statistics.median(found[job].cpu) for _, job in points]
        work = [found[job].work for _, job in points]
        slopes[name] = {"cpu": slope(values, cpu), "work": slope(values, work)}
        panel.loglog(values, cpu, "o-", label=f"CPU s, slope {slopes[name]['cpu']:.2f}")
        scaled = [cpu[0] * one / work[0] for one in work]
        panel.loglog(
            values, scaled, "--", color="grey", label=f"operations, slope {slopes[name]['work']:.2f}"
        )
        panel.set_xticks(values, [str(value) for value in values])
        panel.minorticks_off()
        panel.set_xlabel(name)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("CPU seconds a step")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return slopes
