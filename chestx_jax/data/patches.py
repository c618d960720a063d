"""Images to patches: the arithmetic of Qwen2-VL's image processor, vectorised in numpy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_ASPECT_RATIO = 200


class PatchError(ValueError):
    """An image, or a preprocessor configuration, that cannot be cut into patches."""


@dataclass(frozen=True)
class PatchConfig:
    """The part of `preprocessor_config.json` that decides what a patch is."""

    patch: int = 14
    temporal: int = 2
    merge: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    rescale: float = 1 / 255

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "PatchConfig":
        """Reads the keys of a Hugging Face preprocessor configuration, old (`min_pixels`) or new
        (`size.shortest_edge`).

        Raises: PatchError when a step that the model relies on is switched off.
        """
        off = [key for key in ("do_resize", "do_rescale", "do_normalize") if not config.get(key, True)]
        if off:
            raise PatchError(f"preprocessor configuration switches off {', '.join(off)}: unsupported")
        size = config.get("size") or {}
        default = cls()

        def pixels(name: str, edge: str, fallback: int) -> int:
            return int(config.get(name) or size.get(edge) or size.get(name) or fallback)

        return cls(
            patch=int(config.get("patch_size", default.patch)),
            temporal=int(config.get("temporal_patch_size", default.temporal)),
            merge=int(config.get("merge_size", default.merge)),
            min_pixels=pixels("min_pixels", "shortest_edge", default.min_pixels),
            max_pixels=pixels("max_pixels", "longest_edge", default.max_pixels),
            mean=tuple(config.get("image_mean") or default.mean),
            std=tuple(config.get("image_std") or default.std),
            rescale=float(config.get("rescale_factor", default.rescale)),
        )

    @property
    def width(self) -> int:
        """Numbers in one patch: channels x temporal x patch x patch (1176)."""
        return len(self.mean) * self.temporal * self.patch**2

    @cached_property
    def table(self) -> Float32[np.ndarray, "C 256"]:
        """Normalised value of every byte, a row a channel: rescale, then (x - mean) / std, in the order and
        precision of transformers."""
        scaled = (np.arange(256, dtype=np.float64) * self.rescale).astype(np.float32)
        mean, std = (np.asarray(x, np.float32)[:, None] for x in (self.mean, self.std))
        return (scaled[None] - mean) / std


def smart_resize(height: int, width: int, config: PatchConfig) -> tuple[int, int]:
    """Height and width, as multiples of patch x merge, that an image is resized to; equal to transformers'
    `smart_resize`."""
    factor = config.patch * config.merge
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise PatchError(f"image of {height}x{width}: the aspect ratio exceeds {MAX_ASPECT_RATIO}")
    high, wide = round(height / factor) * factor, round(width / factor) * factor
    if high * wide > config.max_pixels:
        shrink = math.sqrt(height * width / config.max_pixels)
        high = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif high * wide < config.min_pixels:
        grow = math.sqrt(config.min_pixels / (height * width))
        high = math.ceil(height * grow / factor) * factor
        wide = math.ceil(width * grow / factor) * factor
    return high, wide


def grid_of(height: int, width: int, config: PatchConfig) -> tuple[int, int, int]:
    """`(t, h, w)` in patches of an image of that size, without looking at it."""
    high, wide = smart_resize(height, width, config)
    return 1, high // config.patch, wide // config.patch


def patchify(
    image: UInt8[np.ndarray, "H W 3"], config: PatchConfig, out: Float32[np.ndarray, "P F"] | None = None
) -> tuple[Float32[np.ndarray, "P F"], Int32[np.ndarray, "P 2"]]:
    """Patches of one image and the row and column of each, in the merge-block order of
    `Qwen2VLImageProcessorPil`.

    The bytes are rearranged first, while they are small, and then looked up in the 256-entry table of their
    channel: one pass instead of a rescale, a subtraction, a division and a strided copy in float32. A still
    image is repeated along the temporal patch.

    Args:
      image: RGB bytes; resized (bicubic) first if `smart_resize` says so.
      out: C-contiguous float32 array to write into, if given: spares a copy of 5 MB for a 448 px image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != len(config.mean):
        raise PatchError(
            f"an image must be uint8 [H, W, {len(config.mean)}], got {image.dtype} {list(image.shape)}"
        )
    high, wide = smart_resize(image.shape[0], image.shape[1], config)
    if (high, wide) != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize((wide, high), Image.Resampling.BICUBIC))
    p, m, channels = config.patch, config.merge, len(config.mean)
    rows, cols = high // p, wide // p
    planes = image[..., :1] if image.strides[2] == 0 else image  # `load_image`: a grey picture is one plane
    blocks = planes.reshape(rows // m, m, p, cols // m, m, p, -1).transpose(6, 0, 3, 1, 4, 2, 5)
    codes = blocks.reshape(-1, rows * cols, p * p)
    if out is None:
        out = np.empty((rows * cols, config.width), np.float32)
    view = out.reshape(rows * cols, channels, config.temporal, p * p)
    if not np.shares_memory(view, out):
        raise PatchError("the array to write into is not contiguous")
    values = np.empty((rows * cols, p * p), np.float32)  # small enough for the cache
    for channel in range(channels):
        # mode="clip" lets numpy write straight into `values`; a byte can never leave the table
        np.take(config.table[channel], codes[channel % len(codes)], out=values, mode="clip")
        view[:, channel] = values[:, None]
    place = np.indices((rows, cols), np.int32).reshape(2, rows // m, m, cols // m, m)
    return out, np.ascontiguousarray(place.transpose(1, 3, 2, 4, 0).reshape(-1, 2))
