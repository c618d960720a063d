"""The skeleton, with its fractures."""

from dataclasses import dataclass

import numpy as np

from chestx_jax.data.sources.phantom.anatomy import Chest
from chestx_jax.data.sources.phantom.canvas import MIDLINE, Canvas, Field, Strokes, curve, ramp
from chestx_jax.data.sources.phantom.scene import Patient


@dataclass(frozen=True)
class Break:
    """Displaced rib fractures: on `side` at `d` from the midline, through the ribs between two heights."""

    side: str
    d: float
    above: float
    below: float
    offset: float


def ribs(canvas: Canvas, chest: Chest, breaks: tuple[Break, ...] = ()) -> Field:
    """Ten pairs of posterior ribs and, fainter, the anterior ends."""
    p = chest.patient
    bend = (canvas.d / (0.37 * p.width)) ** 2
    y = canvas.y + 0.012 * np.sin(6.0 * canvas.d) - bend * np.float32(0.115) * (1.25 - 0.45 * canvas.y)
    gap: Field | float = 0.0
    ends: Field | float = 0.0
    for b in breaks:
        half = canvas.half(b.side)
        window = ramp((canvas.y - b.above) / 0.002) * ramp((b.below - canvas.y) / 0.002)
        y = y + b.offset * ramp((canvas.d - b.d) / 0.0015) * half * window
        away = np.abs(canvas.d - b.d)
        gap = gap + ramp((0.007 - away) / 0.0015) * half * window
        ends = ends + np.exp(-(((away - 0.017) / 0.016) ** 2)) * half * window
    phase = (y - p.rib_start) / p.rib_spacing
    index = np.round(phase)
    dist = np.abs(phase - index) * p.rib_spacing
    thick = 0.0115
    solid = ramp((thick - dist) / 0.0022)
    edge = np.exp(-(((dist - thick * 0.82) / 0.0028) ** 2))
    inside = ramp((chest.lateral + 0.012 - canvas.d) / 0.004) * ramp((canvas.d - 0.03) / 0.006)
    kept = ((index >= 0) & (index <= 9)) * inside
    if breaks:
        kept = kept * (1 - gap)
    posterior = (solid * 0.75 + 0.3 * edge) * kept

    slope = canvas.y + 0.85 * (canvas.d - 0.2) * (0.5 + 0.5 * canvas.y)
    front = (slope - p.rib_start) / (p.rib_spacing * 1.35)
    near = np.abs(front - np.round(front)) * p.rib_spacing * 1.35
    span = ramp((canvas.d - 0.13) / 0.02) * ramp((chest.lateral + 0.01 - canvas.d) / 0.004)
    rows = ramp((canvas.y - p.top - 0.16) / 0.01) * ramp((0.8 - canvas.y) / 0.02)
    anterior = ramp((0.013 - near) / 0.003) * span * rows
    field = p.rib_contrast * (posterior + 0.38 * anterior)
    # fragment ends are seen end on and overlap: dense whatever the ribs' own contrast
    return field + 0.65 * ends * solid * kept if breaks else field


def skeleton(canvas: Canvas, chest: Chest) -> Field:
    """Spine, clavicles, shoulder blades, humeral heads."""
    p = chest.patient
    spine = ramp((0.036 - canvas.d) / 0.006)
    discs = 0.75 + 0.25 * np.cos(2 * np.pi * canvas.y / 0.052) * (canvas.y > 0)
    field = 0.26 * spine * discs + 0.10 * np.exp(-((canvas.d / 0.012) ** 2))
    strokes = Strokes(canvas)
    for sign in (-1.0, 1.0):
        _clavicle(strokes, p, sign)
    field = field + 0.34 * strokes.field()
    blades = Strokes(canvas)
    for sign in (-1.0, 1.0):
        pts = [(0.40, 0.20), (0.455, 0.23), (0.43, 0.34), (0.395, 0.45), (0.365, 0.44), (0.355, 0.30)]
        blades.polygon(curve([(MIDLINE + sign * dx * p.width, y) for dx, y in pts], 6), 0.5)
        blades.ring((MIDLINE + sign * 0.475 * p.width, 0.205), 0.042, 0.05, 1.0)
    return field + 0.24 * blades.field(0.004)


def _clavicle(strokes: Strokes, patient: Patient, sign: float) -> None:
    """One clavicle, from the sternum to the shoulder."""
    t, tilt = patient.top + 0.075, patient.clavicle
    bone = [(0.04, 0.01), (0.10, -0.002), (0.17, -0.028), (0.24, -0.052), (0.31, -0.058), (0.38, -0.05)]
    points = [(MIDLINE + sign * dx * patient.width, t + dy + tilt * dx * 3) for dx, dy in bone]
    strokes.ring(points[0], 0.014, 0.02)
    strokes.line(curve(points, 8), 0.019)
