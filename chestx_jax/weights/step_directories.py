"""Finding the step directories of a run, and telling whole ones from unfinished and damaged ones.

A save is finished when Orbax has renamed its directory and stamped its metadata. After that, in the background,
`write_manifest` leaves the size and a checksum of every file in `files.json`; `damage` compares them again. So a file
that was cut, changed or lost later is found before a run goes on from it. The checksum is the CRC-32 of what is read
again from a disk, and in a bucket the MD5 that it keeps of every object, which costs no reading.

In a bucket a directory has its final name from the start; Orbax's commit_success.txt, written last, finishes it.
"""

import base64
import hashlib
import json
import logging
import zlib
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from chestx_jax.storage import File, StorageError, absolute, files_below, is_cloud, to_path
from chestx_jax.weights.model_files import write_atomically

CHECKPOINTS, MODEL = "checkpoints", "model"
METADATA = "_CHECKPOINT_METADATA"
MANIFEST = "files.json"
PARAMS = "params"
COMMITTED = "commit_success.txt"  # in a bucket
_TEMPORARY = ".orbax-checkpoint-tmp"
_CHUNK = 1 << 22  # bytes read at a time

log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint that is missing, unfinished, damaged, or of another model or run; the message names what
    differs."""


def check_holds_checkpoints(directory: epath.PathLike) -> None:
    """Raises StorageError for a directory in which Orbax can neither write nor read: it knows disks and gs://."""
    if is_cloud(directory) and not str(directory).startswith("gs://"):
        raise StorageError(
            f"{directory}: checkpoints can be on disks and in gs:// only (Orbax has no other bucket); "
            "of s3:// use data and Hugging Face directories, and put runs on a disk"
        )


def find_step(directory: epath.PathLike) -> epath.Path | None:
    """The step directory that `directory` means: itself, or the newest in it or in its `checkpoints`.

    None when `directory` is nothing of ours.

    Raises:
      CheckpointError: when it is a run's directory, but no checkpoint in it is finished.
    """
    path = absolute(directory)  # a run is found by a step's parents
    if path.name == CHECKPOINTS or (path / CHECKPOINTS).is_dir() or (path / METADATA).exists():
        check_holds_checkpoints(path)
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
            content["commit_timestamp_nsecs"]
            and (not is_cloud(path) or (path / COMMITTED).exists())
            and ocp.is_orbax_checkpoint(path)
            and (path / PARAMS).is_dir()
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
    """Write the size and a checksum of every file of the finished checkpoint `path`."""
    sums = {name: [file.size, file.md5 or _crc(file)] for name, file in _files(path).items()}
    write_atomically(to_path(path / MANIFEST), (json.dumps(sums, indent=1) + "\n").encode())


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
        sums: dict[str, tuple[int, int | str]] = json.loads((path / MANIFEST).read_text())
    except ValueError as error:
        return f"{path / MANIFEST} is damaged: {error}"
    there = _files(path)
    for name, (size, expected) in sums.items():
        if not name.startswith(part):
            continue
        if name not in there:
            return f"{path / name} is gone"
        if (found := there[name].size) != size:
            return f"{path / name} has {found} bytes, {size} were written"
        md5 = isinstance(expected, str)  # written in a bucket, wherever it is now
        if expected != (there[name].md5 or _md5(there[name]) if md5 else _crc(there[name])):
            return f"{path / name} is not what was written: its {'MD5' if md5 else 'CRC-32'} differs"
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


def _files(path: epath.Path) -> dict[str, File]:
    """Every file below a step directory by its path there, without the manifest; in the order of their names."""
    return {name: file for name, file in files_below(path).items() if MANIFEST not in name}


def _crc(file: File) -> int:
    crc = 0
    with file.path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _md5(file: File) -> str:
    """As a bucket has it."""
    digest = hashlib.md5()
    with file.path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return base64.b64encode(digest.digest()).decode()
