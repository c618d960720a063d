"""The cheap check of an image: is there a file that begins like a picture? Pixels are decoded later."""

from collections.abc import Iterable
from pathlib import Path

from chestx_jax.data.sources import Reject, Rejected

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")
"""How JPEG, PNG and TIFF files begin; DICOM has its mark after a preamble of 128 bytes (PS3.10, 7.1)."""


def problem_of(path: Path) -> str | None:
    """What is wrong with an image file, None if it exists and begins like JPEG, PNG, TIFF or DICOM."""
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head:
        return "the file is empty"
    if not head.startswith(_MAGIC) and head[128:] != b"DICM":
        return "not a JPEG, PNG, TIFF or DICOM file"
    return None


def usable(table: str, images: Iterable[Path], reject: Reject) -> tuple[Path, ...]:
    """The images that pass `problem_of`; the others are rejected as records of `table`."""
    kept = []
    for path in images:
        if reason := problem_of(path):
            reject(Rejected(f"{table}: {path}", reason))
        else:
            kept.append(path)
    return tuple(kept)
