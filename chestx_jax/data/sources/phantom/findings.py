"""How each finding changes the picture: outlines (`shape_of`), then densities in the lungs and over all."""

import numpy as np

from chestx_jax.data.sources.phantom.anatomy import BELLY, WALL, Chest, Shape
from chestx_jax.data.sources.phantom.bones import Break
from chestx_jax.data.sources.phantom.canvas import MIDLINE, Canvas, Field, Strokes, curve, ramp, sigmoid
from chestx_jax.data.sources.phantom.scene import Finding, Scene

SIGN = {"right": -1.0, "left": 1.0}
_CTR = {1: (0.565, 0.585), 2: (0.60, 0.625), 3: (0.645, 0.68)}
_UPPER = {1: (0.045, 0.055), 2: (0.058, 0.07), 3: (0.075, 0.09)}


def _rng(finding: Finding) -> np.random.Generator:
    return np.random.default_rng(finding.seed)


def sides(finding: Finding) -> tuple[str, ...]:
    """The patient's sides a finding lies on."""
    return ("right", "left") if finding.side == "both" else (finding.side,)


def shape_of(scene: Scene) -> Shape:
    """Heart size, width of the upper mediastinum, raised diaphragm and mediastinal shift."""
    ctr, upper, raised, shift = scene.patient.ctr, (0.0, 0.0), [0.0, 0.0], 0.0
    for f in scene.findings:
        rng = _rng(f)
        if f.label == "cardiomegaly":
            ctr = rng.uniform(*_CTR[f.level])
        elif f.label == "enlarged cardiomediastinum":
            upper = (rng.uniform(*_UPPER[f.level]), rng.uniform(*_UPPER[f.level]))
        elif f.label == "atelectasis":
            for side in sides(f):
                raised[0 if side == "right" else 1] = rng.uniform(0.02, 0.03) + 0.012 * f.level
        elif f.label in ("pleural effusion", "pneumothorax") and f.level == 3 and f.side != "both":
            shift = -SIGN[f.side] * 0.028  # away from the pressure
    return Shape(ctr, upper, (raised[0], raised[1]), shift)


def breaks_of(scene: Scene) -> tuple[Break, ...]:
    """Where ribs are broken."""
    breaks: list[Break] = []
    for f in scene.find("fracture"):
        rng = _rng(f)
        above = rng.uniform(0.28, 0.40)
        offset = float(rng.choice([-1.0, 1.0])) * rng.uniform(0.032, 0.038)
        breaks.append(Break(f.side, rng.uniform(0.20, 0.26), above, above + rng.uniform(0.28, 0.33), offset))
    return tuple(breaks)


def pleural_gap(canvas: Canvas, chest: Chest, scene: Scene) -> tuple[Field | float, Field | float]:
    """Pneumothorax: (mask of the air outside the lung, the visible pleural line)."""
    air: Field | float = 0.0
    line: Field | float = 0.0
    for f in scene.find("pneumothorax"):
        rng = _rng(f)
        depth = {1: rng.uniform(0.055, 0.068), 2: rng.uniform(0.10, 0.12), 3: rng.uniform(0.175, 0.21)}[
            f.level
        ]
        bottom = chest.bottom[0 if f.side == "right" else 1]
        down = np.clip((canvas.y - chest.top) / (bottom - chest.top), 0, 1)
        # widest at the apex; a large one also frees the base
        width = depth * (1.15 - (0.75, 0.5, 0.15)[f.level - 1] * down)
        from_wall = chest.lateral - canvas.d
        from_apex = (canvas.y - chest.top - 0.004) * 0.8
        inner = -0.02 * np.log(np.exp(-from_wall / 0.02) + np.exp(-np.maximum(from_apex, -0.2) / 0.02))
        where = chest.cavity * canvas.half(f.side)
        air = air + where * ramp((width - inner) / 0.003)
        line = line + where * np.exp(-(((inner - width) / 0.0042) ** 2))
    return air, line


def in_lungs(canvas: Canvas, chest: Chest, scene: Scene) -> Field:
    """Added density of consolidation, opacity, atelectasis, edema and lesions, within the lungs."""
    field = np.zeros((canvas.n, canvas.n), np.float32)
    for f in scene.findings:
        rng = _rng(f)
        if f.label == "consolidation":
            field = field + _consolidation(canvas, chest, f, rng)
        elif f.label == "lung opacity":
            field = field + _hazy_patch(canvas, chest, f, rng)
        elif f.label == "atelectasis":
            field = field + _bands(canvas, chest, f, rng)
        elif f.label == "edema":
            field = field + _edema(canvas, chest, f, rng)
        elif f.label == "lung lesion":
            field = field + _lesion(canvas, chest, f, rng)
    return field * chest.lungs


def vessel_gain(scene: Scene) -> float:
    """Vessels grow prominent in edema."""
    return 1.0 + max((0.15 * f.level for f in scene.find("edema")), default=0.0)


def _centre(
    chest: Chest, finding: Finding, rng: np.random.Generator, inner: float, outer: float
) -> tuple[float, float]:
    """A point in the finding's zone, between two distances from the midline."""
    top, dome = chest.top, chest.dome(finding.side)
    third = (dome - top) / 3
    row = {"upper": 0.62, "mid": 1.5, "lower": 2.38}[finding.zone]
    y = top + third * (row + rng.uniform(-0.18, 0.18))
    if finding.zone == "upper":
        outer = min(outer, 0.22)
    if finding.zone == "lower" and finding.side == "left":
        inner = max(inner, 0.25)  # beside the heart, not behind it
    return (
        MIDLINE + SIGN[finding.side] * chest.patient.width * rng.uniform(inner, max(inner + 0.01, outer)),
        y,
    )


def _consolidation(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """A dense, fuzzy lobar opacity with air bronchograms; a fissure bounds the upper lobes below."""
    at = _centre(chest, f, rng, 0.16, 0.21)
    size = {1: 0.082, 2: 0.108, 3: 0.138}[f.level] * rng.uniform(0.95, 1.05)
    lumps = canvas.noise(rng, 9)
    dx, dy = (canvas.x - at[0]) / 1.15, (canvas.y - at[1]) / (0.92 if f.zone != "mid" else 0.8)
    mask = sigmoid((size - np.sqrt(dx * dx + dy * dy) + 0.014 * lumps) / 0.013)
    third = (chest.dome(f.side) - chest.top) / 3
    if f.zone == "upper":
        fissure = chest.top + 1.25 * third + 0.10 * (canvas.d - 0.2)
        mask = mask * ramp((fissure - canvas.y) / 0.004)
    elif f.zone == "mid":
        fissure = chest.top + 0.95 * third - 0.10 * (canvas.d - 0.2)
        mask = mask * ramp((canvas.y - fissure) / 0.004)
    return mask * (1.05 + 0.05 * lumps - 0.34 * _bronchi(canvas, chest, f, at, size, rng))


def _bronchi(
    canvas: Canvas, chest: Chest, f: Finding, at: tuple[float, float], size: float, rng: np.random.Generator
) -> Field:
    """Air-filled bronchi that fork on their way from the hilum through the dense lobe."""
    tubes = Strokes(canvas)
    root = np.array([MIDLINE + SIGN[f.side] * 0.085, chest.top + 0.32])
    to = np.array(at) - root
    to = to / max(float(np.hypot(*to)), 1e-6)
    across = np.array([-to[1], to[0]])
    fork = np.array(at) - 0.45 * size * to
    tubes.line(curve([tuple(root), tuple(fork)], 4), 0.010)
    for turn in (-0.75, -0.2, 0.35, 0.85):
        bend = fork + size * (0.5 * to + (turn * 0.35 + rng.uniform(-0.06, 0.06)) * across)
        end = fork + size * (1.15 * to + (turn + rng.uniform(-0.1, 0.1)) * across)
        tubes.line(curve([tuple(fork), tuple(bend), tuple(end)], 6), 0.0075)
    return tubes.field(0.001)


def _hazy_patch(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """Ground-glass: faint, without an edge; vessels stay visible."""
    at = _centre(chest, f, rng, 0.15, 0.23)
    size = {1: 0.058, 2: 0.072, 3: 0.09}[f.level]
    lumps = canvas.noise(rng, 14)
    return canvas.gauss(at, size * 1.1, size) * (0.50 + 0.09 * lumps)


def _bands(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """Plate-like atelectasis: tapering bands above the (raised) hemidiaphragm."""
    strokes = Strokes(canvas)
    for side in sides(f):
        sign = SIGN[side]
        for i in range(f.level):
            y = chest.dome(side) - 0.032 - 0.042 * i + rng.uniform(-0.006, 0.006)
            near = (0.20 if side == "left" else 0.13) + rng.uniform(-0.01, 0.02)
            far = near + rng.uniform(0.12, 0.16)
            tilt, sag = rng.uniform(-0.03, 0.012), rng.uniform(-0.010, 0.004)
            steps = np.linspace(0, 1, 13)
            spine = [
                (MIDLINE + sign * (near + (far - near) * u), y + tilt * u + sag * 4 * u * (1 - u))
                for u in steps
            ]
            thick = [0.0085 * (0.25 + np.sin(np.pi * u) ** 0.7) for u in steps]
            upper = [(x, row - t) for (x, row), t in zip(spine, thick, strict=True)]
            lower = [(x, row + t) for (x, row), t in zip(spine, thick, strict=True)]
            strokes.polygon([*upper, *lower[::-1]])
    return strokes.field(0.002) * (0.66 + 0.05 * canvas.noise(rng, 20))


def _edema(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """Perihilar bat-wing haze, general haze below and Kerley B lines at the periphery."""
    strength = {1: 0.45, 2: 0.72, 3: 1.0}[f.level] * rng.uniform(0.95, 1.05)
    y = chest.top + 0.34
    wings = canvas.gauss((MIDLINE - 0.13, y), 0.085, 0.14) + canvas.gauss(
        (MIDLINE + 0.13, y - 0.015), 0.085, 0.14
    )
    low = ramp((canvas.y - y) / 0.09)
    lumps = canvas.noise(rng, 18)
    kerley = Strokes(canvas)
    for side in ("right", "left"):
        base = chest.bottom[0 if side == "right" else 1]
        for i in range(7):
            far = MIDLINE + SIGN[side] * (0.36 * chest.patient.width)
            row = base - 0.05 - 0.03 * i + rng.uniform(-0.004, 0.004)
            kerley.line([(far, row), (far - SIGN[side] * rng.uniform(0.035, 0.055), row - 0.004)], 0.0055)
    return strength * (wings * (0.85 + 0.12 * lumps) + 0.18 * low + 0.30 * kerley.field())


def _lesion(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """A round, sharply edged nodule (levels 1, 2) or mass (3)."""
    at = _centre(chest, f, rng, 0.15, 0.26)
    radius = {1: 0.034, 2: 0.043, 3: 0.055}[f.level] * rng.uniform(0.95, 1.08)
    rx = radius * rng.uniform(0.95, 1.05)
    ball = 1 - ((canvas.x - at[0]) / rx) ** 2 - ((canvas.y - at[1]) / radius) ** 2
    # a solid ball: thickest in the middle, with an edge
    return ramp((radius - radius * np.sqrt(np.maximum(1 - ball, 0))) / 0.0025) * (
        0.62 + 0.33 * np.sqrt(np.maximum(ball, 0))
    )


def _wall(canvas: Canvas, chest: Chest) -> Field:
    """The inside of the rib cage with what lies below the diaphragm, whose outline fluid blots out."""
    return ramp((chest.lateral - canvas.d) / 0.0035) * ramp((canvas.d - 0.04) / 0.006)


def add_fluid(canvas: Canvas, chest: Chest, scene: Scene, density: Field) -> Field:
    """Pleural effusion: the angle is filled, the surface climbs along the chest wall (meniscus)."""
    level = BELLY + WALL * chest.patient.wall  # as dense as the abdomen, so that the diaphragm is lost in it
    for f in scene.find("pleural effusion"):
        rng = _rng(f)
        for side in sides(f):
            height = {1: rng.uniform(0.085, 0.105), 2: rng.uniform(0.19, 0.23), 3: rng.uniform(0.36, 0.44)}[
                f.level
            ]
            bottom = chest.bottom[0 if side == "right" else 1]
            out = np.clip((canvas.d - 0.08) / (0.29 * chest.patient.width), 0, 1.15)
            climb = 0.075 + 0.02 * f.level
            surface = bottom - height + climb * (0.55 - out**2.6) - 0.02 * np.clip(0.2 - out, 0, 1)
            mask = canvas.half(side) * ramp((canvas.y - surface) / 0.005) * _wall(canvas, chest)
            density = density + mask * np.maximum(level - density, 0)
    return density
