"""PNG, JPEG and DICOM files -> 8-bit RGB pixels of a fixed size; loud about what is not one whole picture."""

import os
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFile, UnidentifiedImageError

from chestx_jax.data.records import is_record_image, record_image
from chestx_jax.storage import is_cloud, to_path

SIZE = 448
"""The paper's side length in pixels."""


class ImageError(ValueError):
    """A file that does not hold one whole picture; the message names the file and what is wrong with it."""


def load_image(path: str | os.PathLike[str], size: int = SIZE) -> UInt8[np.ndarray, "H W 3"]:
    """One picture as `size` x `size` RGB, squashed with PIL's bicubic filter as in the paper (arXiv
    2504.20930).

    A grey picture is resized in grey: the same values at a third of the work. Its three channels are one array
    then (stride 0, read-only).

    Raises:
      ImageError: missing, empty, truncated, no picture, or a DICOM file that is not one grey picture.
    """
    picture = open_image(path).resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture)
    return pixels if picture.mode == "RGB" else np.broadcast_to(pixels[..., None], (size, size, 3))


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """One picture at its own size, mode "L" or "RGB". What it is is read from its bytes, not from its name.
    The path may lead into an ArrayRecord file (`records`).

    Transparency is dropped. Grey values of more than 8 bits (PNG, TIFF) are stretched from their least and
    greatest value to 0..255, since collections publish 10 to 16 bits in 16-bit files without saying which.
    DICOM: `dicom.grey_of`.
    """
    path = to_path(path)
    content: Path | BytesIO = path
    try:
        if is_record_image(path) or is_cloud(path):
            content = BytesIO(record_image(path) if is_record_image(path) else _fetch(path))
            head = content.getvalue()[:132]
        else:
            with open(path, "rb") as file:
                head = file.read(132)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (IndexError, KeyError, ValueError) as error:
        raise ImageError(f"{path}: no image in a record: {error}") from error
    if not head:
        raise ImageError(f"{path}: the file is empty")
    if head[128:] == b"DICM":
        from chestx_jax.data.dicom import read_dicom  # pydicom and its decoders take half a second to load

        return Image.fromarray(read_dicom(path, content))
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError(f"{path}: PIL's LOAD_TRUNCATED_IMAGES is on, a broken file would pass for a picture")
    try:
        with warnings.catch_warnings(), Image.open(content) as picture:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture.load()
            return _eight_bits(picture)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: neither PNG, JPEG nor DICOM, nor any other picture that PIL knows"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: broken or truncated picture: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}") from error


def _fetch(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise
    except Exception as error:  # the drivers of buckets raise many kinds
        raise ImageError(f"{path}: cannot be read: {error}") from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    if picture.mode in ("L", "RGB"):
        return picture.copy()
    if picture.mode in ("1", "LA", "La"):
        return picture.convert("L")
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_stretch(np.asarray(picture).astype(np.float64)))
    return picture.convert("RGB")


def _stretch(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("pixel values that are not finite")
    return to_bytes((values - low) / (high - low) if high > low else np.zeros_like(values))


def to_bytes(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """0..1 as 0..255."""
    return np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
