"""How each finding changes the picture: the outlines first (`shape_of`), then densities drawn in the lungs and over all."""

import numpy as np

from chestx_jax.data.sources.phantom.anatomy import Break, Chest, Shape
from chestx_jax.data.sources.phantom.canvas import MIDLINE, Canvas, Field, Strokes, curve, profile, sigmoid
from chestx_jax.data.sources.phantom.scene import Finding, Scene

FLUID = 1.55  # density of pleural fluid, next to that of the abdomen
_SIGN = {"right": -1.0, "left": 1.0}
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
            shift = -_SIGN[f.side] * 0.028  # away from the pressure
    return Shape(ctr, upper, (raised[0], raised[1]), shift)


def breaks_of(scene: Scene) -> tuple[tuple[Break, ...], str]:
    """Rib fractures, and the side of a broken clavicle ("" for none)."""
    ribs: list[Break] = []
    clavicle = ""
    for f in scene.find("fracture"):
        rng = _rng(f)
        if f.kind == "clavicle":
            clavicle = f.side
        else:
            above = rng.uniform(0.30, 0.44)
            offset = float(rng.choice([-1.0, 1.0])) * rng.uniform(0.024, 0.029)
            ribs.append(
                Break(f.side, rng.uniform(0.20, 0.27), above, above + rng.uniform(0.20, 0.26), offset)
            )
    return tuple(ribs), clavicle


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
        air = air + where * sigmoid((width - inner) / 0.003)
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
    return 1.0 + max((0.5 * f.level for f in scene.find("edema")), default=0.0)


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
        inner = max(inner, 0.20)  # beside the heart, not behind it
    return (
        MIDLINE + _SIGN[finding.side] * chest.patient.width * rng.uniform(inner, max(inner + 0.01, outer)),
        y,
    )


def _consolidation(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """A dense, fuzzy lobar opacity with air bronchograms; a fissure bounds the upper lobes below."""
    at = _centre(chest, f, rng, 0.16, 0.21)
    size = {1: 0.066, 2: 0.098, 3: 0.135}[f.level] * rng.uniform(0.95, 1.05)
    lumps = canvas.noise(rng, 9)
    dx, dy = (canvas.x - at[0]) / 1.15, (canvas.y - at[1]) / (0.92 if f.zone != "mid" else 0.8)
    mask = sigmoid((size - np.sqrt(dx * dx + dy * dy) + 0.014 * lumps) / 0.013)
    third = (chest.dome(f.side) - chest.top) / 3
    if f.zone == "upper":
        fissure = chest.top + 1.25 * third + 0.10 * (canvas.d - 0.2)
        mask = mask * sigmoid((fissure - canvas.y) / 0.004)
    elif f.zone == "mid":
        fissure = chest.top + 0.95 * third - 0.10 * (canvas.d - 0.2)
        mask = mask * sigmoid((canvas.y - fissure) / 0.004)
    tubes = Strokes(canvas)
    root = (MIDLINE + _SIGN[f.side] * 0.09, chest.top + 0.33)
    for turn in rng.uniform(-0.55, 0.55, 4):
        vx, vy = at[0] - root[0], at[1] - root[1]
        end = (root[0] + 1.5 * (vx - turn * vy), root[1] + 1.5 * (vy + turn * vx))
        tubes.line([root, end], 0.0095)
    return mask * (1.02 + 0.05 * lumps - 0.38 * tubes.field(0.0018))


def _hazy_patch(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """Ground-glass: faint, without an edge; vessels stay visible."""
    at = _centre(chest, f, rng, 0.15, 0.23)
    size = {1: 0.058, 2: 0.072, 3: 0.09}[f.level]
    lumps = canvas.noise(rng, 14)
    return canvas.gauss(at, size * 1.1, size) * (0.50 + 0.09 * lumps)


def _bands(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """Plate-like atelectasis: thick lines above the (raised) hemidiaphragm."""
    strokes = Strokes(canvas)
    for side in sides(f):
        sign = _SIGN[side]
        for i in range(f.level):
            y = chest.dome(side) - 0.035 - 0.042 * i + rng.uniform(-0.006, 0.006)
            near = (0.20 if side == "left" else 0.13) + rng.uniform(-0.01, 0.02)
            far = near + rng.uniform(0.12, 0.15)
            tilt = rng.uniform(-0.03, 0.012)
            mid = (MIDLINE + sign * (near + far) / 2, y + tilt / 2 - 0.004)
            strokes.line(
                curve([(MIDLINE + sign * near, y), mid, (MIDLINE + sign * far, y + tilt)], 6), 0.0135
            )
    return 0.72 * strokes.field(0.0022)


def _edema(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """Perihilar bat-wing haze, general haze below and Kerley B lines at the periphery."""
    strength = {1: 0.45, 2: 0.72, 3: 1.0}[f.level] * rng.uniform(0.95, 1.05)
    y = chest.top + 0.34
    wings = canvas.gauss((MIDLINE - 0.13, y), 0.085, 0.14) + canvas.gauss(
        (MIDLINE + 0.13, y - 0.015), 0.085, 0.14
    )
    low = sigmoid((canvas.y - y) / 0.09)
    lumps = canvas.noise(rng, 18)
    kerley = Strokes(canvas)
    for side in ("right", "left"):
        base = chest.bottom[0 if side == "right" else 1]
        for i in range(7):
            far = MIDLINE + _SIGN[side] * (0.36 * chest.patient.width)
            row = base - 0.05 - 0.03 * i + rng.uniform(-0.004, 0.004)
            kerley.line([(far, row), (far - _SIGN[side] * rng.uniform(0.035, 0.055), row - 0.004)], 0.0055)
    return strength * (wings * (0.85 + 0.10 * lumps) + 0.16 * low + 0.30 * kerley.field(0.0015))


def _lesion(canvas: Canvas, chest: Chest, f: Finding, rng: np.random.Generator) -> Field:
    """A round, sharply edged nodule (levels 1, 2) or mass (3)."""
    at = _centre(chest, f, rng, 0.15, 0.26)
    radius = {1: 0.026, 2: 0.034, 3: 0.052}[f.level] * rng.uniform(0.95, 1.08)
    return 0.85 * canvas.disc(at, radius * rng.uniform(0.95, 1.05), radius, 0.0025)


def add_fluid(canvas: Canvas, chest: Chest, scene: Scene, density: Field) -> Field:
    """Pleural effusion: the angle is filled, the surface climbs along the chest wall (meniscus)."""
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
            mask = chest.cavity * canvas.half(side) * sigmoid((canvas.y - surface) / 0.006)
            density = density + mask * np.maximum(FLUID - density, 0)
    return density


def devices(canvas: Canvas, chest: Chest, scene: Scene) -> Field | float:
    """Metal and tubes, drawn over everything else."""
    items = scene.find("support devices")
    if not items:
        return 0.0
    strokes = Strokes(canvas)
    for f in items:
        _DRAW[f.kind](strokes, chest, f, _rng(f))
    return 1.9 * strokes.field(0.001)


def _pacemaker(strokes: Strokes, chest: Chest, f: Finding, rng: np.random.Generator) -> None:
    sign, t = _SIGN[f.side], chest.top
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
    for dx in (-0.0075, 0.0075):
        strokes.line([(x - 0.006 + dx, -0.06), (x + dx, end)], 0.0048, 0.55)
    strokes.line([(x - 0.006, -0.06), (x, end)], 0.004, 0.85)


def _central_line(strokes: Strokes, chest: Chest, f: Finding, rng: np.random.Generator) -> None:
    sign, t = _SIGN[f.side], chest.top
    start = (MIDLINE + sign * rng.uniform(0.26, 0.32), t - 0.05)
    way = [start, (MIDLINE + sign * 0.19, t + 0.065), (MIDLINE + sign * 0.09, t + 0.075)]
    way += [
        (MIDLINE - 0.03, t + 0.13),
        (MIDLINE - 0.045, t + 0.24),
        (MIDLINE - 0.047, t + rng.uniform(0.31, 0.35)),
    ]
    strokes.line(curve(way), 0.0075, 0.72)


def _sternal_wires(strokes: Strokes, chest: Chest, f: Finding, rng: np.random.Generator) -> None:
    for i in range(5):
        y = chest.top + 0.14 + 0.075 * i
        x = MIDLINE + rng.uniform(-0.004, 0.004)
        loop = [(x - 0.02, y), (x, y - 0.011), (x + 0.02, y), (x, y + 0.011), (x - 0.02, y)]
        strokes.line(curve(loop, 6), 0.006, 0.85)
        strokes.line([(x + 0.004, y + 0.01), (x + 0.012, y + 0.02)], 0.006, 0.85)


def _ecg_leads(strokes: Strokes, chest: Chest, f: Finding, rng: np.random.Generator) -> None:
    spots = [(-0.27, 0.16), (0.29, 0.17), (-0.30, 0.58), (0.33, 0.56), (0.10, 0.40)]
    for dx, dy in spots[: int(rng.integers(4, 6))]:
        at = (MIDLINE + dx + rng.uniform(-0.02, 0.02), chest.top + dy + rng.uniform(-0.02, 0.02))
        strokes.ring(at, 0.015, 0.006, 0.75)
        strokes.ring(at, 0.006, 0.01, 0.9)
        away = 1.0 if dx > 0 else -1.0
        knee = (at[0] + away * 0.05, at[1] + 0.10)
        strokes.line(curve([at, knee, (at[0] + away * rng.uniform(0.0, 0.06), 1.06)]), 0.005, 0.6)


_DRAW = {
    "pacemaker": _pacemaker,
    "endotracheal tube": _tube,
    "central line": _central_line,
    "sternal wires": _sternal_wires,
    "ecg leads": _ecg_leads,
}
