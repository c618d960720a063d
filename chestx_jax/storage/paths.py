"""From what a user wrote to a path."""

import importlib.util
import os
import posixpath
from pathlib import Path
from typing import cast

import fsspec
from etils import epath

_DRIVERS = {"gs": "gcsfs", "s3": "s3fs"}  # scheme -> the package that talks to it
_MARK = "://"

# Orbax writes to buckets past fsspec, and so do other processes: a listing that is remembered is soon a wrong one.
for _scheme in ("gs", "gcs", "s3"):
    fsspec.config.conf.setdefault(_scheme, {})["use_listings_cache"] = False


class StorageError(Exception):
    """A place that cannot be used; the message names it and says why, and what to do."""


def to_path(place: str | os.PathLike[str]) -> Path:
    """A path of this machine, or for gs://bucket/name and s3://bucket/name one of that bucket, without `..`.

    Raises:
      StorageError: another scheme, no bucket, or its driver is not installed.
    """
    text = os.fspath(place)
    if _MARK not in text:
        return Path(text)
    scheme, rest = text.split(_MARK, 1)
    if scheme not in _DRIVERS:
        raise StorageError(f"{text}: only directories of this machine, gs:// and s3:// can be used")
    name = posixpath.normpath(rest)
    if name.startswith((".", "/")):
        raise StorageError(f"{text}: no bucket; expected {scheme}://bucket/name")
    if importlib.util.find_spec(_DRIVERS[scheme]) is None:
        raise StorageError(f"{text} needs the package {_DRIVERS[scheme]}: pip install 'chestx_jax[cloud]'")
    # An epath does what is asked of a pathlib.Path here: /, name, parent, exists, is_dir, is_file, iterdir, mkdir,
    # open to read and to write, read_*, write_*, unlink. What it does not do is in this room.
    return cast(Path, epath.Path(f"{scheme}{_MARK}{name}"))


def is_cloud(place: str | os.PathLike[str]) -> bool:
    """Whether it lies in a bucket."""
    return _MARK in os.fspath(place)


def absolute(place: str | os.PathLike[str]) -> epath.Path:
    """For Orbax, which takes no relative paths; an epath's own `absolute` puts the working directory before gs://."""
    path = to_path(place)
    return epath.Path(path if is_cloud(path) else path.absolute())


def on_this_machine(place: str | os.PathLike[str], name: str, instead: str) -> Path:
    """The path of a directory or file that has to lie on a disk.

    Args:
      name: the flag or field that gave it.
      instead: what a user with a bucket can do.

    Raises:
      StorageError: it lies in a bucket.
    """
    if is_cloud(place):
        raise StorageError(f"{name}={os.fspath(place)} must be on this machine, not in a bucket; {instead}")
    return Path(place)
