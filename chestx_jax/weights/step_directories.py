"""Finding the step directories of a run, and telling whole ones from unfinished and damaged ones.

A save is finished when Orbax has renamed its directory and stamped its metadata. After that, in the background,
`write_manifest` leaves the size and CRC-32 of every file in `files.json`; `damage` compares them again. So a file
that was cut, changed or lost later is found before a run goes on from it.
"""

import json
import logging
import zlib
from collections.abc import Iterator
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

CHECKPOINTS, MODEL = "checkpoints", "model"
METADATA = "_CHECKPOINT_METADATA"
MANIFEST = "files.json"
PARAMS = "params"
_TEMPORARY = ".orbax-checkpoint-tmp"
_CHUNK = 1 << 22  # bytes read at a time

log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint that is missing, unfinished, damaged, or of another model or run; the message names what
    differs."""


def find_step(directory: epath.PathLike) -> epath.Path | None:
    """The step directory that `directory` means: itself, or the newest in it or in its `checkpoints`.

    None when `directory` is nothing of ours.

    Raises:
      CheckpointError: when it is a run's directory, but no checkpoint in it is finished.
    """
    path = epath.Path(directory).absolute()  # Orbax takes no other, and a run is found by a step's parents
    if (path / METADATA).exists():
        return path
    for root in (path / CHECKPOINTS, path):
        if steps := finished_steps(root):
            return root / str(steps[-1])
    if (path / CHECKPOINTS).is_dir():
        raise CheckpointError(f"{path / CHECKPOINTS} holds no finished checkpoint")
    return None


def companions(directory: epath.PathLike) -> epath.Path:
    """Where a model's config, tokenizer and processor files are: in its Hugging Face directory, or in the
    `model` directory of the run that its checkpoint belongs to."""
    step = find_step(directory)
    return epath.Path(directory) if step is None else step.parent.parent / MODEL


def finished_steps(root: epath.PathLike) -> tuple[int, ...]:
    """Steps under `root` whose save was completed, ascending."""
    root = epath.Path(root)
    if not root.is_dir():
        return ()
    return tuple(sorted(int(p.name) for p in root.iterdir() if p.name.isdecimal() and _is_finished(p)))


def read_metadata(path: epath.Path) -> dict[str, Any]:
    """What was saved beside the arrays of a finished checkpoint.

    Raises:
      CheckpointError: when its save was not completed.
    """
    try:
        content = json.loads((path / METADATA).read_text())
        whole = (
            content["commit_timestamp_nsecs"] and ocp.is_orbax_checkpoint(path) and (path / PARAMS).is_dir()
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no finished checkpoint: {error}") from error
    if not whole:
        raise CheckpointError(f"{path} is no finished checkpoint")
    return content["custom_metadata"]


def _is_finished(path: epath.Path) -> bool:
    try:
        read_metadata(path)
    except CheckpointError:
        return False
    return True


def write_manifest(path: epath.Path) -> None:
    """Write the size and CRC-32 of every file of the finished checkpoint `path`."""
    sums = {name: [file.stat().length, _crc(file)] for name, file in _files(path)}
    partial = path / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(sums, indent=1) + "\n")
    partial.replace(path / MANIFEST)


def damage(path: epath.Path, part: str = "") -> str | None:
    """What is wrong with the files of a finished checkpoint, naming the first; None when they are as written.

    Args:
      part: read only the files of one part, e.g. "params"; "" for all.

    A checkpoint without a manifest passes with a warning: its run died between the save and the checksums, or
    it is older than they are.
    """
    if not (path / MANIFEST).exists():
        log.warning("%s has no %s: its files cannot be checked", path, MANIFEST)
        return None
    try:
        sums: dict[str, list[int]] = json.loads((path / MANIFEST).read_text())
    except ValueError as error:
        return f"{path / MANIFEST} is damaged: {error}"
    there = dict(_files(path))
    for name, (size, crc) in sums.items():
        if not name.startswith(part):
            continue
        if name not in there:
            return f"{path / name} is gone"
        if (found := there[name].stat().length) != size:
            return f"{path / name} has {found} bytes, {size} were written"
        if _crc(there[name]) != crc:
            return f"{path / name} is not what was written: its CRC-32 differs"
    return None


def set_aside(path: epath.Path, why: str) -> epath.Path:
    """Move a step directory out of the numbers: 9 becomes `why`-9, in place of an earlier one of that name."""
    aside = path.parent / f"{why}-{path.name}"
    if aside.exists():
        aside.rmtree()
    path.rename(aside)
    return aside


def set_unfinished_aside(root: epath.Path) -> None:
    """Orbax would count them among those to keep, and refuse to save a step of the same number. What a killed
    save left under a temporary name is removed."""
    if not root.is_dir():
        return
    for path in list(root.iterdir()):
        if _TEMPORARY in path.name:
            path.rmtree()
        elif path.name.isdecimal() and not _is_finished(path):
            log.warning(
                "%s is no finished checkpoint; it becomes %s", path, set_aside(path, "unfinished").name
            )


def _files(path: epath.Path) -> Iterator[tuple[str, epath.Path]]:
    """Every file below a step directory by its path there, without the manifest; in the order of their names."""
    for below in sorted(path.iterdir()):
        if below.is_dir():
            yield from ((f"{below.name}/{name}", file) for name, file in _files(below))
        elif not below.name.startswith(MANIFEST):
            yield below.name, below


def _crc(file: epath.Path) -> int:
    crc = 0
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
