"""One program at a time in a run's directory."""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chestx_jax.storage import is_cloud
from chestx_jax.training.claim import LOCK, claimant, claimed
from chestx_jax.training.state import TrainingError

log = logging.getLogger(__name__)


@contextmanager
def locked(workdir: Path) -> Iterator[Callable[[], None]]:
    """Hold the directory's lock: an flock(2) on `workdir/lock`, which also says who holds it; in a bucket, `claimed`.
    Gives a function that raises TrainingError when it was lost, as only a claim can be.

    The kernel gives the lock back when its holder dies, however it dies, so there is no stale lock to remove. Between
    hosts it holds where the file system passes flock on: NFS 4 and Lustre (mounted with `flock`) do, older NFS only
    within a host, Cloud Storage FUSE not at all. Where there is no flock, a warning says so.

    Raises:
      TrainingError: another program holds it; names its host and process.
    """
    if is_cloud(workdir):
        with claimed(workdir) as still_ours:
            yield still_ours
        return
    with (workdir / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(workdir) or {"host": "?", "pid": "?"}
            raise TrainingError(
                f"{workdir} is in use by process {holder['pid']} on {holder['host']}; stop it (kill {holder['pid']}: "
                "it saves first), or give another --workdir"
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): see that no second run writes there", workdir, error)
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n")
        file.flush()
        yield lambda: None


def holder(workdir: Path) -> dict[str, Any] | None:
    """Host and pid of the program that holds the lock; None when nobody does."""
    if is_cloud(workdir):
        return claimant(workdir)
    try:
        with (workdir / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(workdir) or {"host": "?", "pid": "?"}
    except FileNotFoundError:
        return None  # nothing has ever run here
    return None


def _read(workdir: Path) -> dict[str, Any] | None:
    try:
        return json.loads((workdir / LOCK).read_text())
    except ValueError:  # its holder is about to write it
        return None
