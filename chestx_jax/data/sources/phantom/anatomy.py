"""Normal anatomy as a density field: what the rays lose on their way, before the film's exponential.

Densities add; brightness is `1 - exp(-density)`: bone over heart is brighter than either, and nothing clips.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, sin

import numpy as np
from jaxtyping import Float

from chestx_jax.data.sources.phantom.canvas import MIDLINE, Canvas, Field, Strokes, profile, ramp
from chestx_jax.data.sources.phantom.scene import Patient

WALL = 0.92  # chest wall beside the lungs
LUNG = 0.26  # aerated lung with the wall before and behind it
HEART = 1.42
BELLY = 0.70  # what the organs below the diaphragm add to the wall
_FORKS = 4  # vessels of a tree from the hilum outwards
_LOTS = 15 + 7  # of a tree: a length for each vessel, a turn for each fork


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
    half: tuple[tuple[float, float], ...] = (
        (-0.3, 0.0),
        (-0.012, 0.13),
        (0.0, 0.152),
        (0.012, 0.172),
        (0.035, 0.202),
        (0.07, 0.235),
        (0.13, 0.274),
    )
    half += ((0.25, 0.318), (0.40, 0.348), (0.55, 0.362), (0.75, 0.365), (1.2, 0.37))
    lateral = profile(canvas.y, [(t + dy, d) for dy, d in half]) * np.float32(w)
    inner = (
        (-0.3, 0.3),
        (-0.012, 0.155),
        (0.0, 0.135),
        (0.012, 0.115),
        (0.035, 0.09),
        (0.07, 0.07),
        (0.13, 0.05),
    )
    medial = profile(canvas.y, [(t + dy, d) for dy, d in (*inner, (1.2, 0.04))])
    domes = (patient.dome_right - shape.raised[0], patient.dome_left - shape.raised[1])
    dome = np.where(canvas.right > 0, domes[0], domes[1]).astype(np.float32)
    peak, reach = 0.16 * w, 0.2 * w
    out = (canvas.d - peak) / reach
    base = (
        patient.dome_right + 0.115,
        patient.dome_left + 0.10,
    )  # costophrenic angles do not rise with the dome
    drop = np.where(canvas.right > 0, base[0] - domes[0], base[1] - domes[1]).astype(np.float32)
    diaphragm = dome + np.where(out > 0, drop * np.abs(out) ** 2.4, 0.05 * np.abs(out) ** 2).astype(
        np.float32
    )

    side = ramp((lateral - canvas.d) / 0.0035)
    above = ramp((diaphragm - canvas.y) / 0.0035)
    cavity = side * above * ramp((canvas.d - medial) / 0.006)
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
    right_knots = (
        (-0.4, 0.03),
        (t - 0.06, 0.035 + 0.25 * er),
        (t + 0.02, ur * 0.9 + 0.75 * er),
        (t + 0.10, ur + er),
        (t + 0.19, ur + er),
        (t + 0.28, ur + 0.6 * er),
        (base - 0.24, max(0.055 + 0.3 * er, wr * 0.62)),
        (base - 0.17, wr * 0.92),
        (base - 0.10, wr),
        (base - 0.04, wr * 0.95),
        (base + 0.02, wr * 0.8),
        (1.4, wr * 0.6),
    )
    left_knots = (
        (-0.4, 0.03),
        (t - 0.06, 0.035 + 0.25 * el),
        (t + 0.02, ul * 0.9 + 0.75 * el),
        (t + 0.11, ul + 0.006 + el),
        (t + 0.18, ul + 0.024 + el),
        (t + 0.235, ul + 0.008 + 0.85 * el),
        (t + 0.28, 0.064 + 0.5 * el),
        (base - 0.25, max(0.072 + 0.25 * el, wl * 0.46)),
        (base - 0.19, max(0.09, wl * 0.66)),
        (base - 0.12, wl * 0.89),
        (base - 0.065, wl),
        (base - 0.03, wl * 0.99),
        (base + 0.005, wl * 0.88),
        (base + 0.04, wl * 0.6),
        (1.4, wl * 0.4),
    )
    right, left = profile(canvas.y, right_knots), profile(canvas.y, left_knots)
    x = canvas.x - MIDLINE - shape.shift
    return ramp((left - x) / 0.0045) * ramp((right + x) / 0.0045)


def soft_tissue(canvas: Canvas, chest: Chest) -> Field:
    """Body, lungs without markings, heart and abdomen."""
    patient = chest.patient
    skin: tuple[tuple[float, float], ...] = (
        (-0.4, 0.11),
        (0.0, 0.115),
        (0.06, 0.14),
        (0.10, 0.24),
        (0.135, 0.38),
        (0.19, 0.50),
        (0.26, 0.54),
    )
    skin += ((0.36, 0.50), (0.48, 0.455), (0.7, 0.44), (0.9, 0.45), (1.4, 0.46))
    body_half = profile(canvas.y, [(row + patient.top - 0.14, d) for row, d in skin])
    inside = body_half * patient.width - canvas.d
    body = ramp(inside / 0.006) * (1 - 0.45 * np.exp(-np.maximum(inside, 0) / 0.05))
    density = 0.03 + WALL * patient.wall * body
    # the wall is seen edge on beside the lung, and the lower chest is thicker
    depth = np.maximum(chest.lateral - canvas.d, 0)
    air = WALL * patient.wall - LUNG - 0.22 * np.exp(-depth / 0.022) - 0.08 * (canvas.y - 0.4)
    density = density - chest.cavity * air
    belly = ramp((canvas.y - chest.diaphragm) / 0.0035) * ramp((chest.lateral + 0.02 - canvas.d) / 0.012)
    density = density + belly * BELLY
    if patient.breast:
        for x in (MIDLINE - 0.2, MIDLINE + 0.2):
            density = density + patient.breast * canvas.disc((x, 0.6), 0.15, 0.14, 0.012)
    return density


def bubble(canvas: Canvas, chest: Chest) -> Field | float:
    """Air in the stomach, under the left hemidiaphragm."""
    if not chest.patient.bubble:
        return 0.0
    at = (MIDLINE + 0.15 * chest.patient.width, chest.dome("left") + 0.075)
    return -0.75 * canvas.disc(at, 0.065, 0.036, 0.006)


def add_heart(canvas: Canvas, chest: Chest, density: Field) -> Field:
    """Heart and mediastinum, hila, trachea and main bronchi."""
    t, shift = chest.patient.top, chest.shape.shift
    heart = chest.heart * ramp((chest.diaphragm + 0.02 - canvas.y) / 0.02)
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
        for angle in np.linspace(-1.25, 1.35, 7) + rng.uniform(-0.12, 0.12, 7):
            lots = iter(rng.random(_LOTS).tolist())
            _branch(strokes, lots, root, float(angle), 0.085, 0.0105, sign, _FORKS)
    return strokes.field() * chest.lungs


def _branch(
    strokes: Strokes,
    lots: Iterator[float],
    at: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    sign: float,
    depth: int,
) -> None:
    """One vessel and, at its end, two thinner ones; `lots` are numbers in 0..1 drawn by lot."""
    length *= 0.8 + 0.4 * next(lots)
    end = (at[0] + sign * length * cos(angle), at[1] + length * sin(angle))
    strokes.line([at, end], width, 0.25 + 45 * width)
    if depth > 1:
        turn = 0.2 + 0.25 * next(lots)
        _branch(strokes, lots, end, angle + turn, length * 0.8, width * 0.64, sign, depth - 1)
        _branch(strokes, lots, end, angle - turn, length * 0.85, width * 0.68, sign, depth - 1)
