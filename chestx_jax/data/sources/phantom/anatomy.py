"""Normal anatomy as a density field: what the rays lose on their way, before the film's exponential.

Densities add; brightness is `1 - exp(-density)`, so that bone over heart is brighter than either and nothing clips.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from chestx_jax.data.sources.phantom.canvas import MIDLINE, Canvas, Field, Strokes, curve, profile, sigmoid
from chestx_jax.data.sources.phantom.scene import Patient

WALL = 0.92  # chest wall beside the lungs
LUNG = 0.26  # aerated lung with the wall before and behind it
HEART = 1.42
ABDOMEN = 1.62


@dataclass(frozen=True)
class Shape:
    """What findings change in the outlines.

    Attributes:
        ctr: cardiothoracic ratio to draw.
        upper: extra half width of the upper mediastinum, (patient's right, left).
        raised: how far each hemidiaphragm is raised, (right, left).
        shift: shift of the mediastinum towards the image's right.
    """

    ctr: float
    upper: tuple[float, float] = (0.0, 0.0)
    raised: tuple[float, float] = (0.0, 0.0)
    shift: float = 0.0


@dataclass(frozen=True)
class Chest:
    """Outlines of one chest on a canvas.

    Attributes:
        lateral: [n, 1] half width of the rib cage's inside at each row.
        diaphragm: [1, n] y of the diaphragm at each column.
        lungs: [n, n] soft mask of both lungs, behind the mediastinum cut off.
        cavity: [n, n] soft mask of both hemithoraces down to the diaphragm.
        heart: [n, n] soft mask of heart and mediastinum.
        top: y of the lung apices; bottom: (right, left) y of the costophrenic angles.
    """

    patient: Patient
    shape: Shape
    lateral: Float[np.ndarray, "N 1"]
    diaphragm: Float[np.ndarray, "1 N"]
    lungs: Field
    cavity: Field
    heart: Field
    top: float
    bottom: tuple[float, float]

    def dome(self, side: str) -> float:
        """y of the top of one hemidiaphragm."""
        i = 0 if side == "right" else 1
        return (self.patient.dome_right, self.patient.dome_left)[i] - self.shape.raised[i]


def outline(canvas: Canvas, patient: Patient, shape: Shape) -> Chest:
    """Lay out lungs, diaphragm and heart for one patient."""
    w, t = patient.width, patient.top
    lateral = profile(
        canvas.y,
        [
            (t - 0.3, 0.0),
            (t - 0.015, 0.10),
            (t, 0.15),
            (t + 0.02, 0.195),
            (t + 0.06, 0.235),
            (t + 0.13, 0.275),
        ]
        + [(t + 0.25, 0.318), (t + 0.40, 0.348), (t + 0.55, 0.362), (t + 0.75, 0.365), (t + 1.2, 0.37)],
    )
    lateral = lateral * np.float32(w)
    medial = profile(
        canvas.y,
        [(t - 0.3, 0.3), (t - 0.015, 0.17), (t, 0.12), (t + 0.03, 0.075), (t + 0.1, 0.05), (1.2, 0.04)],
    )
    domes = (patient.dome_right - shape.raised[0], patient.dome_left - shape.raised[1])
    dome = np.where(canvas.right > 0, domes[0], domes[1]).astype(np.float32)
    peak, reach = 0.16 * w, 0.2 * w
    out = (canvas.d - peak) / reach
    base = (
        patient.dome_right + 0.115,
        patient.dome_left + 0.10,
    )  # costophrenic angles do not rise with the dome
    drop = np.where(canvas.right > 0, base[0] - domes[0], base[1] - domes[1])
    diaphragm = dome + np.where(out > 0, drop * np.abs(out) ** 2.4, 0.05 * np.abs(out) ** 2).astype(
        np.float32
    )

    side = sigmoid((lateral - canvas.d) / 0.0035)
    above = sigmoid((diaphragm - canvas.y) / 0.0035)
    cavity = side * above * sigmoid((canvas.d - medial) / 0.006)
    heart = _heart(canvas, patient, shape, diaphragm)
    lungs = cavity * (1 - heart)
    return Chest(patient, shape, lateral, diaphragm, lungs, cavity, heart, t, base)


def _heart(canvas: Canvas, patient: Patient, shape: Shape, diaphragm: np.ndarray) -> Field:
    """Mask of heart and mediastinum from one border profile a side."""
    t, thorax = patient.top, 0.72 * patient.width
    total = shape.ctr * thorax
    wr, wl = 0.33 * total, 0.67 * total
    base = patient.dome_left
    ur, ul = patient.upper_right, patient.upper_left
    er, el = shape.upper
    right = profile(
        canvas.y,
        [
            (-0.4, 0.03),
            (t - 0.06, 0.035),
            (t + 0.02, ur * 0.9 + 0.5 * er),
            (t + 0.10, ur + er),
            (t + 0.2, ur + er),
        ]
        + [(t + 0.30, ur + 0.35 * er), (base - 0.25, max(0.055, wr * 0.62)), (base - 0.17, wr * 0.92)]
        + [(base - 0.10, wr), (base - 0.04, wr * 0.95), (base + 0.02, wr * 0.8), (1.4, wr * 0.6)],
    )
    left = profile(
        canvas.y,
        [(-0.4, 0.03), (t - 0.06, 0.035), (t + 0.02, ul * 0.9 + 0.5 * el), (t + 0.11, ul + 0.006 + el)]
        + [(t + 0.19, ul + 0.024 + el), (t + 0.25, ul + 0.008 + 0.6 * el), (t + 0.30, 0.068 + 0.2 * el)]
        + [
            (base - 0.28, max(0.075, wl * 0.42)),
            (base - 0.20, max(0.09, wl * 0.63)),
            (base - 0.12, wl * 0.88),
        ]
        + [(base - 0.055, wl), (base - 0.01, wl * 0.95), (base + 0.03, wl * 0.7), (1.4, wl * 0.4)],
    )
    x = canvas.x - MIDLINE - shape.shift
    return sigmoid((left - x) / 0.0045) * sigmoid((right + x) / 0.0045)


def soft_tissue(canvas: Canvas, chest: Chest) -> Field:
    """Body, lungs without markings, heart and abdomen."""
    patient = chest.patient
    body_half = profile(
        canvas.y,
        [(-0.4, 0.11), (0.0, 0.115), (0.06, 0.14), (0.10, 0.24), (0.135, 0.38), (0.19, 0.50), (0.26, 0.54)]
        + [(0.36, 0.50), (0.48, 0.455), (0.7, 0.44), (0.9, 0.45), (1.4, 0.46)],
    )
    inside = body_half * patient.width - canvas.d
    body = sigmoid(inside / 0.006) * (1 - 0.45 * np.exp(-np.maximum(inside, 0) / 0.05))
    density = 0.03 + WALL * patient.wall * body
    # the wall is seen edge on beside the lung, and the lower chest is thicker
    depth = np.maximum(chest.lateral - canvas.d, 0)
    air = WALL * patient.wall - LUNG - 0.22 * np.exp(-depth / 0.022) - 0.08 * (canvas.y - 0.4)
    density = density - chest.cavity * air
    belly = sigmoid((canvas.y - chest.diaphragm) / 0.0035) * sigmoid(
        (chest.lateral + 0.02 - canvas.d) / 0.012
    )
    density = density + belly * (ABDOMEN - WALL)
    if patient.breast:
        for x in (MIDLINE - 0.2, MIDLINE + 0.2):
            density = density + patient.breast * canvas.disc((x, 0.6), 0.15, 0.14, 0.012)
    if patient.bubble:
        at = (MIDLINE + 0.15 * patient.width, chest.dome("left") + 0.075)
        density = density - 0.75 * canvas.disc(at, 0.065, 0.036, 0.006)
    return density


def add_heart(canvas: Canvas, chest: Chest, density: Field) -> Field:
    """Heart and mediastinum, hila, trachea and main bronchi."""
    t, shift = chest.patient.top, chest.shape.shift
    heart = chest.heart * sigmoid((chest.diaphragm + 0.02 - canvas.y) / 0.02)
    fade = profile(canvas.y, [(-0.4, 0.55), (t + 0.05, 0.75), (t + 0.25, 0.92), (t + 0.45, 1.0), (1.4, 1.0)])
    density = density + heart * fade * np.maximum(HEART - density, 0)
    hilum = canvas.gauss((MIDLINE + 0.085, t + 0.30), 0.022, 0.045) + canvas.gauss(
        (MIDLINE - 0.08, t + 0.325), 0.022, 0.045
    )
    density = density + 0.20 * hilum * chest.lungs
    air = Strokes(canvas)
    x = MIDLINE + chest.patient.trachea + shift
    carina = (x, t + 0.25)
    air.line([(x - 0.004, -0.06), carina], 0.034)
    air.line([carina, (x - 0.05, t + 0.31)], 0.020)
    air.line([carina, (x + 0.06, t + 0.32)], 0.017)
    return density - 0.34 * air.field(0.004)


def markings(canvas: Canvas, chest: Chest) -> Field:
    """Pulmonary vessels: trees that branch from both hila and taper outwards."""
    rng = np.random.default_rng(chest.patient.seed)
    strokes = Strokes(canvas)
    for sign in (-1.0, 1.0):
        root = (MIDLINE + sign * 0.075, chest.top + 0.31)
        for angle in np.linspace(-1.25, 1.35, 8) + rng.uniform(-0.12, 0.12, 8):
            _branch(strokes, rng, root, float(angle), 0.085, 0.0105, sign, 4)
    return strokes.field(0.0022) * chest.lungs


def _branch(
    strokes: Strokes,
    rng: np.random.Generator,
    at: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    sign: float,
    depth: int,
) -> None:
    """One vessel and, at its end, two thinner ones."""
    length *= rng.uniform(0.8, 1.2)
    end = (at[0] + sign * length * np.cos(angle), at[1] + length * np.sin(angle))
    strokes.line([at, end], width, 0.25 + 45 * width)
    if depth > 1:
        turn = rng.uniform(0.2, 0.45)
        _branch(strokes, rng, end, angle + turn, length * 0.8, width * 0.64, sign, depth - 1)
        _branch(strokes, rng, end, angle - turn, length * 0.85, width * 0.68, sign, depth - 1)


@dataclass(frozen=True)
class Break:
    """A displaced rib fracture: on `side` at distance `d` from the midline, through ribs between two heights."""

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
    gap = np.zeros((canvas.n, canvas.n), np.float32)
    for b in breaks:
        beyond = sigmoid((canvas.d - b.d) / 0.0015) * canvas.half(b.side)
        window = sigmoid((canvas.y - b.above) / 0.002) * sigmoid((b.below - canvas.y) / 0.002)
        y = y + b.offset * beyond * window
        gap = gap + np.exp(-(((canvas.d - b.d) / 0.007) ** 2)) * canvas.half(b.side) * window
    phase = (y - p.rib_start) / p.rib_spacing
    index = np.round(phase)
    dist = np.abs(phase - index) * p.rib_spacing
    half = 0.0115
    solid = sigmoid((half - dist) / 0.0022)
    edge = np.exp(-(((dist - half * 0.82) / 0.0028) ** 2))
    inside = sigmoid((chest.lateral + 0.012 - canvas.d) / 0.004) * sigmoid((canvas.d - 0.03) / 0.006)
    kept = ((index >= 0) & (index <= 9)) * inside
    posterior = (solid * 0.75 + 0.3 * edge) * kept * (1 - gap)

    slope = canvas.y + 0.85 * (canvas.d - 0.2) * (0.5 + 0.5 * canvas.y)
    front = (slope - p.rib_start) / (p.rib_spacing * 1.35)
    near = np.abs(front - np.round(front)) * p.rib_spacing * 1.35
    span = sigmoid((canvas.d - 0.13) / 0.02) * sigmoid((chest.lateral + 0.01 - canvas.d) / 0.004)
    rows = sigmoid((canvas.y - p.top - 0.16) / 0.01) * sigmoid((0.8 - canvas.y) / 0.02)
    anterior = sigmoid((0.013 - near) / 0.003) * span * rows
    return p.rib_contrast * (posterior + 0.38 * anterior)


def skeleton(canvas: Canvas, chest: Chest, clavicle_break: str = "") -> Field:
    """Spine, clavicles, shoulder blades and humeral heads. `clavicle_break`: the side of a displaced clavicle."""
    p = chest.patient
    spine = sigmoid((0.036 - canvas.d) / 0.006)
    discs = 0.75 + 0.25 * np.cos(2 * np.pi * canvas.y / 0.052) * (canvas.y > 0)
    field = 0.26 * spine * discs + 0.10 * np.exp(-((canvas.d / 0.012) ** 2))
    strokes = Strokes(canvas)
    for side, sign in (("right", -1.0), ("left", 1.0)):
        _clavicle(strokes, p, sign, broken=side == clavicle_break)
    field = field + 0.34 * strokes.field(0.0018)
    blades = Strokes(canvas)
    for sign in (-1.0, 1.0):
        pts = [(0.40, 0.20), (0.455, 0.23), (0.43, 0.34), (0.395, 0.45), (0.365, 0.44), (0.355, 0.30)]
        blades.polygon(curve([(MIDLINE + sign * dx * p.width, y) for dx, y in pts], 6), 0.5)
        blades.ring((MIDLINE + sign * 0.475 * p.width, 0.205), 0.042, 0.05, 1.0)
    return field + 0.24 * blades.field(0.004)


def _clavicle(strokes: Strokes, patient: Patient, sign: float, broken: bool) -> None:
    """One clavicle, or its two fragments: the lateral one sinks and overlaps the medial one, which rises."""
    t, tilt = patient.top + 0.075, patient.clavicle

    def at(dx: float, dy: float) -> tuple[float, float]:
        return (MIDLINE + sign * dx * patient.width, t + dy + tilt * dx * 3)

    bone = [(0.04, 0.01), (0.10, -0.002), (0.17, -0.028), (0.24, -0.052), (0.31, -0.058), (0.38, -0.05)]
    if not broken:
        strokes.line(curve([at(*q) for q in bone], 8), 0.019)
        strokes.ring(at(0.04, 0.01), 0.014, 0.02)
        return
    strokes.line(curve([at(dx, dy - 0.22 * max(0.0, dx - 0.08)) for dx, dy in bone[:4]], 8), 0.019)
    strokes.line(curve([at(dx - 0.03, dy + 0.045) for dx, dy in bone[3:]], 8), 0.019)
    strokes.ring(at(0.04, 0.01), 0.014, 0.02)
