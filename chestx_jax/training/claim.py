"""One program at a time in a run's directory in a bucket, which has no locks that end with their holder.

A program in the directory has two files under `lock/`: its claim, written once, and its beat, written anew every
`BEAT` seconds. Who finds another's claim watches its beat for `SILENCE` seconds: a beat that moves belongs to a run,
the claim of one that stands still is removed. No clocks are compared. A program that was taken for dead (its machine
slept) finds its claim gone and stops before it writes anything more; two that come at the same moment see each other,
and both stop.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chestx_jax.training.state import TrainingError

LOCK = "lock"
BEAT = 15.0
SILENCE = 60.0
_CLAIM, _BEAT = ".claim", ".beat"

log = logging.getLogger(__name__)


@contextmanager
def claimed(workdir: Path, beat: float = BEAT, silence: float = SILENCE) -> Iterator[Callable[[], None]]:
    """Hold the claim to a directory of a bucket. Gives a function to call before anything is written there; it raises
    TrainingError when another program has taken this one for dead.

    Raises:
      TrainingError: another program is in it; names its host and process.
    """
    mine = workdir / LOCK / uuid.uuid4().hex
    ended, lost = threading.Event(), threading.Event()
    _write_beat(mine, 0)
    mine.with_suffix(_CLAIM).write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n")

    def still_ours() -> None:
        if lost.is_set():
            raise TrainingError(
                f"{workdir}: nothing was heard of this program for so long that another one took the run over"
            )

    thread = threading.Thread(target=_keep_beating, args=(mine, beat, ended, lost), daemon=True)
    thread.start()
    try:
        _remove_dead(workdir, mine, silence)
        yield still_ours
    finally:
        ended.set()
        thread.join()
        for suffix in (_CLAIM, _BEAT):
            mine.with_suffix(suffix).unlink(missing_ok=True)


def claimant(workdir: Path, silence: float = SILENCE) -> dict[str, Any] | None:
    """Host and pid of the program whose claim is there and whose beat is younger than `silence`; by this machine's
    clock, for a look from outside."""
    for claim in _claims(workdir):
        if time.time() - _beat_of(claim).get("time", 0.0) < silence:
            return json.loads(claim.read_text())
    return None


def _remove_dead(workdir: Path, mine: Path, silence: float) -> None:
    before = {claim: _beat_of(claim) for claim in _claims(workdir) if claim.stem != mine.name}
    if not before:
        return
    log.info(
        "%s: another program was here and left no word; %.0f s to see whether it lives", workdir, silence
    )
    time.sleep(silence)
    for claim, beat in before.items():
        if not claim.exists():
            continue
        if _beat_of(claim) != beat:
            other = json.loads(claim.read_text())
            raise TrainingError(
                f"{workdir} is in use by process {other['pid']} on {other['host']}; stop it (kill {other['pid']}: "
                "it saves first), or give another --workdir"
            )
        for suffix in (_CLAIM, _BEAT):
            claim.with_suffix(suffix).unlink(missing_ok=True)


def _keep_beating(mine: Path, beat: float, ended: threading.Event, lost: threading.Event) -> None:
    number = 0
    while not ended.wait(beat):
        number += 1
        try:
            _write_beat(mine, number)
            there = mine.with_suffix(_CLAIM).exists()
        except Exception as error:  # the network is away for a moment; a longer silence loses the claim
            log.warning("%s: no sign of life could be left: %s", mine.parent, error)
            continue
        if not there:
            lost.set()
            mine.with_suffix(_BEAT).unlink(missing_ok=True)
            return


def _claims(workdir: Path) -> list[Path]:
    folder = workdir / LOCK
    return [path for path in folder.iterdir() if path.suffix == _CLAIM] if folder.is_dir() else []


def _write_beat(mine: Path, number: int) -> None:
    mine.with_suffix(_BEAT).write_text(json.dumps({"number": number, "time": time.time()}) + "\n")


def _beat_of(claim: Path) -> dict[str, Any]:
    try:
        return json.loads(claim.with_suffix(_BEAT).read_text())
    except FileNotFoundError:
        return {}
