"""From a scene to pixels."""

from functools import cache, lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from chestx_jax.data.sources.phantom import anatomy, bones, devices, findings
from chestx_jax.data.sources.phantom.canvas import Canvas, Field, Strokes
from chestx_jax.data.sources.phantom.scene import Acquisition, Scene

SIZE = 256
_DARK, _BRIGHT = 7.0, 243.0  # grey values of no and of endless density: nothing clips, even with noise


def render(scene: Scene, *, size: int = SIZE) -> UInt8[np.ndarray, "H W"]:
    """Draw one frontal chest X-ray, `size` x `size`, 8-bit grey, bone white. Same scene, same bytes."""
    _keep_memory()
    canvas = Canvas(size)
    film = _film(canvas, scene)
    return _expose(_pose(canvas, film, scene.acquisition), scene.acquisition)


@cache
def _keep_memory() -> None:
    """Have the C library keep what is freed for the next field, once a process.

    glibc returns the end of its heap to the system when more than twice the largest block that was ever freed
    lies there unused; to fetch a field of 0.3 MB again, page by page, costs more than the arithmetic on it.
    """
    np.empty(1 << 24, np.uint8)


def _film(canvas: Canvas, scene: Scene) -> Field:
    """Density of the upright chest on the canvas, back to front."""
    chest = anatomy.outline(canvas, scene.patient, findings.shape_of(scene))
    density = anatomy.soft_tissue(canvas, chest)
    air, line = findings.pleural_gap(canvas, chest, scene)
    vessels = np.minimum(anatomy.markings(canvas, chest) * findings.vessel_gain(scene), 1.6)
    within = 0.30 * vessels + findings.in_lungs(canvas, chest, scene)
    density = density + within * (1 - air) + 0.32 * line - 0.17 * air
    density = anatomy.add_heart(canvas, chest, density)
    density = findings.add_fluid(canvas, chest, scene, density)
    density = density + anatomy.bubble(canvas, chest)
    breaks = findings.breaks_of(scene)
    density = density + bones.ribs(canvas, chest, breaks) + bones.skeleton(canvas, chest)
    density = density + devices.devices(canvas, chest, scene)
    return density.astype(np.float32)


def _pose(canvas: Canvas, film: Field, pose: Acquisition) -> Field:
    """Turn, zoom and shift about the centre, and crop the canvas to the picture."""
    size, angle = canvas.size, np.deg2rad(pose.rotation)
    a, b = np.cos(angle) / pose.zoom, np.sin(angle) / pose.zoom
    middle, out = canvas.n / 2, size / 2
    dx, dy = pose.shift[0] * size, pose.shift[1] * size
    # Pillow maps output pixels to input pixels
    coefficients = (
        a, b, middle + dx - a * out - b * out,
        -b, a, middle + dy + b * out - a * out,
    )  # fmt: skip
    image = Image.fromarray(film).transform(
        (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    return np.asarray(image)


def _expose(film: Field, acquisition: Acquisition) -> UInt8[np.ndarray, "H W"]:
    """Density to grey: film exponential, gamma, grain, and the lead letter that marks the side."""
    size = film.shape[0]
    rng = np.random.default_rng(acquisition.seed)
    value = 1 - np.exp(-np.maximum(film, 0.01) * np.float32(acquisition.exposure))
    value = value ** np.float32(acquisition.gamma)
    grain = rng.standard_normal((size, size), dtype=np.float32)
    value = value + grain * np.float32(acquisition.noise) * (0.6 + 0.8 * value * (1 - value) * 2)
    if acquisition.marker:
        value = np.maximum(value, 0.93 * _marker(size, acquisition.marker))
    return np.clip(np.rint(_DARK + (_BRIGHT - _DARK) * value), 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def _marker(size: int, letter: str) -> Field:
    """The letter in the upper corner on its own side, inside the picture."""
    canvas = Canvas(size)
    strokes = Strokes(canvas)
    x, y, h = (0.045 if letter == "R" else 0.925), 0.05, 0.05
    strokes.line([(x, y), (x, y + h)], 0.009)
    if letter == "R":
        bowl = [(x, y), (x + 0.022, y), (x + 0.03, y + 0.012), (x + 0.022, y + 0.026), (x, y + 0.026)]
        strokes.line(bowl, 0.009)
        strokes.line([(x + 0.012, y + 0.026), (x + 0.032, y + h)], 0.009)
    else:
        strokes.line([(x, y + h), (x + 0.028, y + h)], 0.009)
    start = (canvas.n - size) // 2
    return strokes.field()[start : start + size, start : start + size]
