"""What a path of a bucket does not offer by itself: parts of files, checksums, files for libraries."""

import atexit
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from etils import epath

from chestx_jax.storage.paths import is_cloud, to_path


@dataclass(frozen=True)
class File:
    """A file as a listing shows it; `md5` in base64 where the bucket keeps one (Cloud Storage does)."""

    path: epath.Path
    size: int
    md5: str | None


def size_of(path: Path) -> int:
    """Bytes of a file.

    Raises:
      FileNotFoundError: no such file.
    """
    return epath.Path(path).stat().length


def read_ranges(ranges: Sequence[tuple[Path, int, int]]) -> list[bytes]:
    """The bytes from `begin` to `end` of files in one bucket, all asked for at once.

    Raises:
      OSError: a file is missing, or shorter than that; names it.
    """
    disk, _ = _split(ranges[0][0])
    names = [_split(path)[1] for path, _, _ in ranges]
    begins, ends = ([part[at] for part in ranges] for at in (1, 2))
    found: list[bytes] = disk.cat_ranges(names, begins, ends, on_error="raise")
    for (path, begin, end), content in zip(ranges, found, strict=True):
        if len(content) != end - begin:
            raise OSError(f"{path}: bytes {begin} to {end} were asked for, {len(content)} came")
    return found


def files_below(directory: epath.Path) -> dict[str, File]:
    """Every file below a directory by its path there, in the order of their names."""
    if not is_cloud(directory):
        return dict(_walk(directory, ""))
    disk, root = _split(directory)
    found = disk.find(root, detail=True).values()
    return {
        name: File(directory / name, info["size"], info.get("md5Hash"))
        for info in sorted(found, key=lambda info: info["name"])
        if (name := info["name"][len(root) + 1 :])  # an empty one marks the directory itself
    }


def _walk(directory: epath.Path, prefix: str) -> Iterable[tuple[str, File]]:
    for below in sorted(directory.iterdir()):
        if below.is_dir():
            yield from _walk(below, f"{prefix}{below.name}/")
        else:
            yield prefix + below.name, File(below, size_of(Path(below)), None)


def small_files(directory: Path, names: Iterable[str]) -> Path:
    """A directory of this machine with those of the files that there are, for libraries that open files by name: the
    directory itself, or copies out of a bucket that stay until the program ends."""
    if not is_cloud(directory):
        return directory
    root = tempfile.mkdtemp(prefix="chestx_jax-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    # the bucket's name is part of the copy's, so that messages that name a file say which one it is
    copies = Path(root, *epath.Path(directory).parts[1:])
    copies.mkdir(parents=True)
    there = {path.name for path in directory.iterdir()}
    for name in there.intersection(names):
        (copies / name).write_bytes((directory / name).read_bytes())
    return copies


def _split(path: Path) -> tuple[Any, str]:
    """The file system of a path, and its name there."""
    disk, name = fsspec.core.url_to_fs(str(to_path(path)))
    return disk, name
