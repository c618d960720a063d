"""The drawing board: fields over an upright chest in unit coordinates, and strokes drawn with Pillow.

Coordinates: x to the image's right, y down, the picture being the unit square; the board is a little larger,
so that turning and shifting the picture (the last step) never shows an empty edge.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
Field = Float[np.ndarray, "N N"]

MARGIN = 0.05
MIDLINE = 0.5
_SUPERSAMPLE = 2


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Logistic function without overflow."""
    return (0.5 + 0.5 * np.tanh(0.5 * z)).astype(np.float32)


def ramp(z: np.ndarray) -> np.ndarray:
    """The logistic function's cheap cousin for sharp edges: 0 below -2, 1 above 2, straight between."""
    out = 0.25 * z
    out += 0.5
    return np.clip(out, 0, 1, out=out)


class Canvas:
    """Coordinates of a board of `n` x `n` pixels for pictures of `size` pixels.

    Attributes:
        x: [1, n] unit coordinates of the columns. y: [n, 1] of the rows.
        d: [1, n] distance from the midline.
        right, left: [1, n] 1.0 on the patient's right (image left), or left, half.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.n = round(size * (1 + 2 * MARGIN))
        axis = ((np.arange(self.n, dtype=np.float32) + 0.5) / size - (self.n / size - 1) / 2).astype(
            np.float32
        )
        self.x, self.y = axis[None, :], axis[:, None]
        self.d = np.abs(self.x - MIDLINE)
        self.right = (self.x < MIDLINE).astype(np.float32)
        self.left = 1 - self.right
        self._board_scale = size * _SUPERSAMPLE
        self._board_offset = (self.n / size - 1) / 2

    def half(self, side: str) -> np.ndarray:
        """[1, n] mask of the patient's "right" or "left" half."""
        return self.right if side == "right" else self.left

    def gauss(self, at: Point, sx: float, sy: float) -> Field:
        """A separable Gaussian bump of height 1."""
        return np.exp(-(((self.y - at[1]) / sy) ** 2) / 2) * np.exp(-(((self.x - at[0]) / sx) ** 2) / 2)

    def disc(self, at: Point, rx: float, ry: float, edge: float) -> Field:
        """An ellipse with a soft edge of width `edge`."""
        r = np.sqrt(((self.x - at[0]) / rx) ** 2 + ((self.y - at[1]) / ry) ** 2)
        return ramp((1 - r) * (min(rx, ry) / edge))

    def noise(self, rng: np.random.Generator, cells: int) -> Field:
        """Smooth noise of unit variance, `cells` bumps across."""
        coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
        field = np.asarray(Image.fromarray(coarse).resize((self.n, self.n), Image.Resampling.BICUBIC))
        return field / max(float(field.std()), 1e-6)

    def pixel(self, point: Point) -> Point:
        """Unit coordinates to those of the supersampled stroke board."""
        offset, scale = self._board_offset, self._board_scale
        return ((point[0] + offset) * scale, (point[1] + offset) * scale)


class Strokes:
    """Lines and filled shapes on a supersampled board, read back as one field in 0..1."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._image = Image.new("L", (canvas.n * _SUPERSAMPLE,) * 2)
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Point], width: float, value: float = 1.0) -> None:
        """A polyline; `width` in unit coordinates, at least one board pixel."""
        joint = "curve" if len(points) > 2 else None
        thick = max(1, round(width * self._canvas.size * _SUPERSAMPLE))
        self._draw.line(
            [self._canvas.pixel(p) for p in points], fill=round(255 * value), width=thick, joint=joint
        )

    def polygon(self, points: Sequence[Point], value: float = 1.0) -> None:
        """A filled polygon."""
        self._draw.polygon([self._canvas.pixel(p) for p in points], fill=round(255 * value))

    def ring(self, at: Point, radius: float, width: float, value: float = 1.0) -> None:
        """A circle line, or with `width` >= `radius` a filled disc."""
        (left, top), (right, bottom) = (
            self._canvas.pixel((at[0] - radius, at[1] - radius)),
            self._canvas.pixel((at[0] + radius, at[1] + radius)),
        )
        thick = max(1, round(width * self._canvas.size * _SUPERSAMPLE))
        grey = round(255 * value)
        if width >= radius:
            self._draw.ellipse((left, top, right, bottom), fill=grey)
        else:
            self._draw.ellipse((left, top, right, bottom), outline=grey, width=thick)

    def field(self, blur: float = 0.0) -> Field:
        """The strokes as a field, softened over `blur` unit lengths."""
        n, radius = self._canvas.n, 1.5 * blur * self._canvas.size
        field = np.zeros((n, n), np.float32)
        drawn = self._image.getbbox()
        if drawn is None:
            return field
        # only where something is drawn; the blur spreads it, and never sees the edge of the box
        margin = ceil(radius) + 1
        left, top = (max(0, at // _SUPERSAMPLE - margin) for at in drawn[:2])
        right, bottom = (min(n, -(-at // _SUPERSAMPLE) + margin) for at in drawn[2:])
        s = _SUPERSAMPLE
        image = self._image.reduce(s, (s * left, s * top, s * right, s * bottom))
        if blur:
            image = image.filter(ImageFilter.BoxBlur(radius))
        np.divide(np.asarray(image), np.float32(255), out=field[top:bottom, left:right])
        return field


def _spline(points: Sequence[Point], steps: int) -> Float[np.ndarray, "M 2"]:
    """Catmull-Rom spline through the points, `steps` samples a segment and the last point."""
    p = np.array([points[0], *points, points[-1]], dtype=np.float64)
    a, b, c, d = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    t = (np.arange(steps) / steps)[None, :, None]
    inner = 0.5 * (2 * b + t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.concatenate([inner.reshape(-1, 2), p[-1:]])


def curve(points: Sequence[Point], steps: int = 24) -> list[Point]:
    """A smooth curve through the points, as a polyline."""
    return [(x, y) for x, y in _spline(points, steps).tolist()]


def profile(at: np.ndarray, knots: Sequence[Point]) -> np.ndarray:
    """A smooth 1-D profile through (position, value) knots in rising position, evaluated at `at`."""
    points = _spline(knots, steps=8)
    return np.interp(at.ravel(), points[:, 0], points[:, 1]).astype(np.float32).reshape(at.shape)
