"""Support devices: metal and tubes, drawn over everything else."""

import numpy as np

from chestx_jax.data.sources.phantom.anatomy import Chest
from chestx_jax.data.sources.phantom.canvas import MIDLINE, Canvas, Field, Strokes, curve
from chestx_jax.data.sources.phantom.findings import SIGN
from chestx_jax.data.sources.phantom.scene import Finding, Scene


def devices(canvas: Canvas, chest: Chest, scene: Scene) -> Field | float:
    """Added density of all devices, 0 where there is none."""
    items = scene.find("support devices")
    if not items:
        return 0.0
    strokes = Strokes(canvas)
    for f in items:
        _DRAW[f.kind](strokes, chest, f, np.random.default_rng(f.seed))
    return 1.9 * strokes.field()


def _pacemaker(strokes: Strokes, chest: Chest, f: Finding, rng: np.random.Generator) -> None:
    sign, t = SIGN[f.side], chest.top
    x, y = MIDLINE + sign * rng.uniform(0.27, 0.30), t + rng.uniform(0.10, 0.14)
    box = [
        (-0.042, -0.03),
        (0.0, -0.038),
        (0.042, -0.03),
        (0.046, 0.01),
        (0.02, 0.04),
        (-0.02, 0.04),
        (-0.046, 0.01),
    ]
    strokes.polygon(curve([(x + a, y + b) for a, b in [*box, box[0]]], 6), 0.95)
    vein = (MIDLINE + sign * 0.10, t + 0.07)
    cava = (MIDLINE - 0.035, t + 0.16)
    low = chest.patient.dome_right
    atrium, tip = (MIDLINE - 0.05, low - 0.13), (MIDLINE + 0.11, low - 0.015)
    strokes.line(
        curve(
            [
                (x, y - 0.035),
                (x - sign * 0.05, y - 0.06),
                vein,
                cava,
                atrium,
                (MIDLINE + 0.03, low - 0.01),
                tip,
            ]
        ),
        0.0065,
        0.8,
    )
    strokes.ring(tip, 0.008, 0.01, 0.95)


def _tube(strokes: Strokes, chest: Chest, f: Finding, rng: np.random.Generator) -> None:
    x, end = MIDLINE + chest.patient.trachea + chest.shape.shift, chest.top + rng.uniform(0.15, 0.19)
    strokes.line([(x - 0.006, -0.06), (x, end)], 0.026, 0.45)
    for dx in (-0.011, 0.011):
        strokes.line([(x - 0.006 + dx, -0.06), (x + dx, end)], 0.007, 0.8)
    strokes.line([(x - 0.006, -0.06), (x, end)], 0.008, 0.95)


def _central_line(strokes: Strokes, chest: Chest, f: Finding, rng: np.random.Generator) -> None:
    sign, t = SIGN[f.side], chest.top
    start = (MIDLINE + sign * rng.uniform(0.26, 0.32), t - 0.05)
    way = [start, (MIDLINE + sign * 0.19, t + 0.065), (MIDLINE + sign * 0.09, t + 0.075)]
    way += [
        (MIDLINE - 0.03, t + 0.13),
        (MIDLINE - 0.045, t + 0.24),
        (MIDLINE - 0.047, t + rng.uniform(0.31, 0.35)),
    ]
    strokes.line(curve(way), 0.014, 0.95)


def _chest_tube(strokes: Strokes, chest: Chest, f: Finding, rng: np.random.Generator) -> None:
    sign, t, w = SIGN[f.side], chest.top, chest.patient.width
    entry = t + rng.uniform(0.44, 0.50)
    way = [
        (0.47, entry + 0.05),
        (0.36, entry),
        (0.30, t + 0.30),
        (0.24, t + 0.17),
        (rng.uniform(0.15, 0.18), t + 0.09),
    ]
    path = curve([(MIDLINE + sign * dx * w, y) for dx, y in way], 8)
    strokes.line(path, 0.024, 0.5)
    strokes.line(path, 0.008, 0.95)


def _ecg_leads(strokes: Strokes, chest: Chest, f: Finding, rng: np.random.Generator) -> None:
    spots = [(-0.27, 0.16), (0.29, 0.17), (-0.30, 0.58), (0.33, 0.56), (0.10, 0.40)]
    for dx, dy in spots[: int(rng.integers(4, 6))]:
        at = (MIDLINE + dx + rng.uniform(-0.02, 0.02), chest.top + dy + rng.uniform(-0.02, 0.02))
        strokes.ring(at, 0.024, 0.010, 0.9)
        strokes.ring(at, 0.010, 0.014, 0.95)
        away = 1.0 if dx > 0 else -1.0
        knee = (at[0] + away * 0.05, at[1] + 0.10)
        strokes.line(curve([at, knee, (at[0] + away * rng.uniform(0.0, 0.06), 1.06)]), 0.007, 0.7)


_DRAW = {
    "pacemaker": _pacemaker,
    "endotracheal tube": _tube,
    "central line": _central_line,
    "chest tube": _chest_tube,
    "ecg leads": _ecg_leads,
}
