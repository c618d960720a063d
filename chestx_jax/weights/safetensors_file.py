"""Reading and writing safetensors files a tensor at a time.

The format (https://huggingface.co/docs/safetensors/index#format): 8 bytes with the header's length, a JSON
header {name: {dtype, shape, data_offsets}}, then the tensors' bytes, little-endian and row-major, without
gaps.

The library's own functions hold whole files: reading maps the file for as long as it is open, so its pages
count as the process's memory, and writing wants all tensors at once. Here a tensor is mapped while it is in
use and no longer, and written as it comes. From a bucket, which cannot be mapped, only the bytes of the tensors
that are asked for are fetched.
"""

import json
import math
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np

from chestx_jax.storage import is_cloud, read_ranges, size_of
from chestx_jax.weights.model_files import WeightsError

DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: file, byte range from the start of the file, type and shape."""

    file: Path
    begin: int
    end: int
    dtype: np.dtype
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Every tensor of a file.

    Raises:
      WeightsError: when the file is cut short or its header is damaged, or a tensor has a type other than
        F32, BF16 and F16; names the file.
    """
    size = size_of(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > _MAX_HEADER or 8 + length > size:
            raise WeightsError(
                f"{path}: {size} bytes, too short for its header; the file is damaged or cut short"
            )
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise WeightsError(f"{path}: the header is not JSON ({error}); the file is damaged") from error
    header.pop("__metadata__", None)
    tensors = {name: _info(path, name, entry, 8 + length) for name, entry in header.items()}
    end = max((info.end for info in tensors.values()), default=8 + length)
    if end != size:
        raise WeightsError(
            f"{path}: {size} bytes where the header speaks of {end}; the file is cut short or damaged"
        )
    return tensors


def _info(path: Path, name: str, entry: Any, base: int) -> TensorInfo:
    try:
        dtype_name, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: tensor {name}: damaged header entry {entry!r}") from error
    if dtype_name not in DTYPES:
        raise WeightsError(
            f"{path}: tensor {name} has type {dtype_name}; only {', '.join(DTYPES)} can be read"
        )
    dtype = DTYPES[dtype_name]
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise WeightsError(
            f"{path}: tensor {name}: {end - begin} bytes for {dtype_name} {shape}; damaged header"
        )
    return TensorInfo(path, base + begin, base + end, dtype, shape)


def fetched(infos: Sequence[TensorInfo]) -> list[np.ndarray]:
    """Tensors out of a bucket, read-only, all asked for at once.

    Raises:
      WeightsError: a file is cut short, or was replaced while it was read.
    """
    try:
        contents = read_ranges([(info.file, info.begin, info.end) for info in infos])
    except OSError as error:
        raise WeightsError(f"tensors cannot be read: {error}") from error
    return [
        np.frombuffer(content, np.uint8).view(info.dtype).reshape(info.shape)
        for content, info in zip(contents, infos, strict=True)
    ]


@contextmanager
def mapped(info: TensorInfo) -> Iterator[np.ndarray]:
    """The tensor as a read-only view of the file, valid inside of the `with`; copy what should stay.

    Only the pages that are looked at are read, and none of them counts as this process's memory afterwards.
    """
    if info.begin == info.end:
        yield np.empty(info.shape, info.dtype)
        return
    page = info.begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    with info.file.open("rb") as file:
        view = mmap.mmap(file.fileno(), info.end - page, offset=page, access=mmap.ACCESS_READ)
    flat = np.frombuffer(view, np.uint8, count=info.end - info.begin, offset=info.begin - page)
    yield flat.view(info.dtype).reshape(info.shape)
    # No view.close(): it would raise while the caller still holds the array; the map goes with its last user.


class SafetensorsWriter:
    """Writes one file, tensor after tensor, in the order and with the bytes of the safetensors library.

    Args:
      path: the file; must not exist.
      tensors: name -> (dtype, shape) of all that will be written.

    Use as a context manager and call `write` for every name in the order of `order`.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> None:
        self.path = path
        # As the library orders them: widest type first, then by name.
        self.order = tuple(sorted(tensors, key=lambda name: (-np.dtype(tensors[name][0]).itemsize, name)))
        self._tensors = tensors
        self._checksums: dict[str, int] = {}

    def __enter__(self) -> "SafetensorsWriter":
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name in self.order:
            dtype, shape = self._tensors[name]
            end = offset + math.prod(shape) * np.dtype(dtype).itemsize
            header[name] = {
                "dtype": _NAMES[np.dtype(dtype)],
                "shape": list(shape),
                "data_offsets": [offset, end],
            }
            offset = end
        content = json.dumps(header, separators=(",", ":")).encode()
        content += b" " * (-len(content) % 8)
        # a bucket has no "x"; nothing of a file is seen there before it is closed
        self._file = self.path.open("wb" if is_cloud(self.path) else "xb")
        self._file.write(len(content).to_bytes(8, "little") + content)
        return self

    def write(self, name: str, value: np.ndarray) -> None:
        """Append the next tensor.

        Raises:
          WeightsError: when it is not the next in `order`, or has another type or shape than announced.
        """
        expected = self.order[len(self._checksums)]
        dtype, shape = self._tensors[name]
        if name != expected or value.dtype != dtype or value.shape != shape:
            raise WeightsError(
                f"{self.path}: expected {expected} {self._tensors[expected]}, "
                f"got {name} {value.dtype} {value.shape}"
            )
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        self._file.write(data.data)
        self._checksums[name] = zlib.crc32(data.data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not is_cloud(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def verify(self) -> None:
        """Read the closed file again and compare every tensor's checksum with that of the array given to
        `write`.

        Raises:
          WeightsError: names the tensors that are not what was written, or that are missing.
        """
        infos = read_header(self.path)
        wrong = [
            name for name in self.order if name not in infos or not self._is_as_written(name, infos[name])
        ]
        if wrong:
            raise WeightsError(
                f"{self.path}: on disk, these tensors differ from the model's: {', '.join(wrong)}"
            )

    def _is_as_written(self, name: str, info: TensorInfo) -> bool:
        with nullcontext(fetched([info])[0]) if is_cloud(info.file) else mapped(info) as value:
            return zlib.crc32(value.reshape(-1).view(np.uint8).data) == self._checksums.get(name)
