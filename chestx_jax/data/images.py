"""PNG, JPEG and DICOM files -> 8-bit RGB pixels of a fixed size; loud about what is not one whole picture."""

import os
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float, Int, Num, UInt8
from PIL import Image, ImageFile, UnidentifiedImageError
from pydicom.pixels import apply_rescale

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
    DICOM: `grey_of`.
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
        return Image.fromarray(_dicom(path, content))
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
    return _to_bytes((values - low) / (high - low) if high > low else np.zeros_like(values))


def _to_bytes(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    return np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


def _dicom(path: Path, content: Path | BytesIO) -> UInt8[np.ndarray, "H W"]:
    try:
        dataset = pydicom.dcmread(content)
    except Exception as error:  # pydicom raises many kinds
        raise ImageError(f"{path}: broken DICOM file: {error}") from error
    for problem in _unfit(dataset):
        raise ImageError(f"{path}: {problem}")
    try:
        stored = dataset.pixel_array
    except Exception as error:  # likewise, and so do the decoders
        raise ImageError(f"{path}: DICOM pixels cannot be decoded: {error}") from error
    if stored.ndim != 2:
        raise ImageError(f"{path}: DICOM pixels have shape {stored.shape}, expected rows and columns")
    try:
        return grey_of(dataset, stored)
    except Exception as error:
        raise ImageError(f"{path}: DICOM grey-scale attributes cannot be applied: {error}") from error


def _unfit(dataset: pydicom.Dataset) -> list[str]:
    """Why the dataset is not one grey picture: colour captures and many frames are no radiographs."""
    if "PixelData" not in dataset:
        return ["DICOM file without pixel data"]
    problems = []
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        problems.append(f"DICOM file with {dataset.NumberOfFrames} frames, expected one")
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        problems.append(
            f"DICOM photometric interpretation {photometric!r}, expected MONOCHROME1 or MONOCHROME2"
        )
    return problems


def grey_of(dataset: pydicom.Dataset, stored: Int[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Stored values -> what a viewer shows, 0..255 (DICOM PS3.3 C.7.6.3, C.11.1, C.11.2).

    Modality LUT or rescale slope and intercept; then the first VOI LUT, or the first window (LINEAR,
    LINEAR_EXACT or SIGMOID). With neither, 8-bit pictures stay as they are and deeper ones are stretched
    from their least to their greatest value, pixel padding left out. MONOCHROME1 is inverted last, so air is
    black in every picture.
    """
    if dataset.get("ModalityLUTSequence"):
        values = _look_up(stored, dataset.ModalityLUTSequence[0])[0]
    else:
        values = np.asarray(apply_rescale(stored, dataset), dtype=np.float64)
    if dataset.get("VOILUTSequence"):
        looked_up, bits = _look_up(values, dataset.VOILUTSequence[0])
        shown = looked_up / (2**bits - 1)
    elif (center := _first(dataset.get("WindowCenter"))) is not None and dataset.get(
        "WindowWidth"
    ) is not None:
        width = _first(dataset.WindowWidth)
        shown = _window(values, center, float(width or 0.0), str(dataset.get("VOILUTFunction") or "LINEAR"))
    elif int(dataset.BitsStored) == 8 and np.array_equal(values, stored):
        shown = values / 255.0 if not int(dataset.PixelRepresentation) else (values + 128.0) / 255.0
    else:
        shown = _full_range(values, stored, dataset)
    shown = np.clip(shown, 0.0, 1.0)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1.0 - shown
    return _to_bytes(shown)


def _look_up(values: Num[np.ndarray, "H W"], item: pydicom.Dataset) -> tuple[Float[np.ndarray, "H W"], int]:
    """Values through one item of a LUT sequence (PS3.3 C.11.1.1, C.11.2.1.1), and the bits of its entries.

    Values below the first entry take the first, those above the last take the last. Not pydicom's own: that
    one knows entries of 8 and 16 bits only.
    """
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):  # VR OW, in the byte order of every syntax that is not retired
        data = np.frombuffer(data, "<u2" if len(data) >= 2 * (entries or 2**16) else "u1")
    table = np.asarray(data, dtype=np.float64)[: entries or 2**16]
    index = np.clip(np.asarray(values, dtype=np.float64) - first, 0, len(table) - 1)
    return table[index.astype(np.int64)], bits


def _first(value: object) -> float | None:
    """The first of one or more values of a decimal string; None when empty."""
    if value is None:
        return None
    if isinstance(value, pydicom.multival.MultiValue):
        return float(value[0]) if len(value) else None
    return float(str(value))


def _window(
    values: Float[np.ndarray, "H W"], center: float, width: float, function: str
) -> Float[np.ndarray, "H W"]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, scaled to 0..1."""
    function = function.upper()
    if function == "LINEAR" and width >= 1:
        if width == 1:
            return (values > center - 0.5).astype(np.float64)
        return (values - (center - 0.5)) / (width - 1) + 0.5
    if function == "LINEAR_EXACT" and width > 0:
        return (values - center) / width + 0.5
    if function == "SIGMOID" and width > 0:
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))
    raise ValueError(f"window function {function!r} with width {width}")


def _full_range(
    values: Float[np.ndarray, "H W"], stored: Int[np.ndarray, "H W"], dataset: pydicom.Dataset
) -> Float[np.ndarray, "H W"]:
    inside = np.ones(stored.shape, dtype=bool)
    if dataset.get("PixelPaddingValue") is not None:
        limits = (
            int(dataset.PixelPaddingValue),
            int(dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue)),
        )
        inside = (stored < min(limits)) | (stored > max(limits))
    if not inside.any():
        raise ValueError("every pixel is padding")
    low, high = float(values[inside].min()), float(values[inside].max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
