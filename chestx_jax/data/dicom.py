"""The grey picture of a DICOM file: stored values through modality LUT and window to 8 bits."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float, Int, Num, UInt8
from pydicom.pixels import apply_rescale

from chestx_jax.data.images import ImageError, to_bytes


def read_dicom(path: Path, content: Path | BytesIO) -> UInt8[np.ndarray, "H W"]:
    """The one grey picture of a DICOM file, as a viewer shows it.

    Raises:
      ImageError: broken, without pixels, in colour, or of many frames; names `path`.
    """
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
    return to_bytes(shown)


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
