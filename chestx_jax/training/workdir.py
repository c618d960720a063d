"""What a run leaves in its workdir so that it can be told apart and run again."""

import errno
import importlib.metadata
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from chestx_jax.parallel import ClusterError, agree, barrier, is_first
from chestx_jax.storage import Mirror
from chestx_jax.training.lock import locked
from chestx_jax.training.state import TrainingError
from chestx_jax.weights.model_files import write_atomically
from chestx_jax.weights.step_directories import check_holds_checkpoints

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")
RUN, DONE = "run.json", "done"
RESUMED = (RUN, "metrics.jsonl", "model")  # what a run that goes on reads, beside its checkpoints
MENDABLE = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some of your quota",
    errno.EFBIG: "Raise the limit on the size of files",
    errno.EROFS: "Make it writable or give another --workdir",
    errno.EACCES: "Make it writable or give another --workdir",
    errno.EPERM: "Make it writable or give another --workdir",
    errno.ENOTDIR: "Give another --workdir",
    errno.EEXIST: "Give another --workdir",
}

log = logging.getLogger(__name__)


@dataclass
class Life:
    """One start of a run's program, until it ends.

    Attributes:
      began: the time of `time.monotonic()`.
      files: where it writes all but checkpoints. A run in a bucket has a directory of this machine for that, which is
        brought to the bucket before every checkpoint and at the end.
    """

    began: float
    files: Mirror
    still_ours: Callable[[], None] = lambda: None

    def publish(self) -> None:
        """Bring what was written to where the run is.

        Raises:
          TrainingError: another program has taken the run over.
        """
        self.still_ours()
        self.files.push()


@contextmanager
def open_workdir(workdir: Path, config: ConfigDict) -> Iterator[Life]:
    """Take a run's directory for this program: lock it, write `config.json`, add a life to `run.json`'s list
    (command, git revision, package versions, when it started), and note there how it ended on leaving. A life that
    was killed has no end.

    Raises:
      TrainingError: another program is in it; or the disk is full, read-only or not ours.
      StorageError: it is in a bucket that cannot hold checkpoints.
      ClusterError: the processes were given different configs (names the process and the fields), or different disks.
    """
    began = time.monotonic()
    check_holds_checkpoints(workdir)
    with Mirror(workdir) as files, _clear_errors(files.here):
        agree(dict(_leaves(config.to_dict(), "config")))
        if not is_first():  # the first process holds the lock and writes for all
            barrier()
            _check_shared(workdir)
            yield Life(began, files)
            return
        files.here.mkdir(parents=True, exist_ok=True)
        with locked(workdir) as still_ours:
            files.pull(RESUMED)
            write_atomically(
                files.here / "config.json", (config.to_json(indent=2, sort_keys=True) + "\n").encode()
            )
            lives = read_lives(files.here)
            lives.append(_describe_life())
            _write_lives(files.here, lives)
            files.push()
            barrier()
            life = Life(began, files, still_ours)
            try:
                yield life
            except BaseException as error:
                try:
                    _note_end(life, lives, f"{type(error).__name__}: {error}")
                except Exception as second:  # a full disk must not hide why the run ended
                    log.warning("%s: how the run ended was not noted: %s", workdir / RUN, second)
                raise
            _note_end(life, lives, DONE)


def _leaves(config: Mapping[str, Any], at: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{at}.{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, name)
        else:
            yield name, value


def _check_shared(workdir: Path) -> None:
    if not (workdir / RUN).exists():
        raise ClusterError(
            f"{workdir} does not hold what the first process wrote; --workdir must be on a disk that all share"
        )


def read_lives(workdir: Path) -> list[dict[str, Any]]:
    """What `run.json` holds; empty where there is none."""
    path = workdir / RUN
    return json.loads(path.read_text()) if path.exists() else []


def _write_lives(workdir: Path, lives: list[dict[str, Any]]) -> None:
    write_atomically(workdir / RUN, (json.dumps(lives, indent=2) + "\n").encode())


def _describe_life() -> dict[str, Any]:
    return {
        "command": sys.argv,
        "git_revision": git_revision(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "started": time.time(),
    }


def _note_end(life: Life, lives: list[dict[str, Any]], how: str) -> None:
    lives[-1].update(ended=how, seconds=time.monotonic() - life.began)
    _write_lives(life.files.here, lives)
    life.publish()


@contextmanager
def _clear_errors(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        foreign = error.filename and not str(error.filename).startswith(str(workdir))
        if error.errno not in MENDABLE or foreign:
            raise
        raise TrainingError(
            f"{workdir}: {error}. {MENDABLE[error.errno]}, then run the same line to resume; what was saved before is "
            "whole"
        ) from error


def git_revision() -> str:
    """The checkout's commit, with `+changes` when files differ from it; "unknown" outside of a checkout."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changed else "")
