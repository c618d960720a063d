"""One program at a time in a run's directory in a bucket."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chestx_jax.training.claim import LOCK, claimant, claimed
from chestx_jax.training.state import TrainingError

BEAT, SILENCE = 0.1, 2.0


def _other(workdir: Path, number: int) -> None:
    (workdir / LOCK / "other.beat").write_text(json.dumps({"number": number, "time": 0.0}))


@contextmanager
def another_program(workdir: Path, *, alive: bool) -> Iterator[None]:
    """What a program on another host leaves; its beat moves while it is alive."""
    (workdir / LOCK / "other.claim").write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    _other(workdir, 0)
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while alive and not ended.wait(BEAT):
            number += 1
            _other(workdir, number)

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    ended.set()
    thread.join()


def claims(workdir: Path) -> set[str]:
    folder = workdir / LOCK
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_who_holds_the_claim_is_told_and_nothing_is_left_of_it(gs: Path):
    assert claimant(gs) is None
    with claimed(gs, BEAT, SILENCE):
        assert claimant(gs) == {"host": socket.gethostname(), "pid": os.getpid()}
    assert claims(gs) == set()


def test_a_program_that_lives_is_not_disturbed(gs: Path):
    with (
        another_program(gs, alive=True),
        pytest.raises(TrainingError, match=r"in use by process 7 on elsewhere; stop it \(kill 7"),
        claimed(gs, BEAT, SILENCE),
    ):
        pytest.fail("two programs are in")
    assert claims(gs) == {"other.claim", "other.beat"}


def test_what_a_killed_program_left_is_removed(gs: Path):
    with another_program(gs, alive=False), claimed(gs, BEAT, SILENCE):
        assert len(claims(gs)) == 2 and "other.claim" not in claims(gs)


def test_a_program_that_was_taken_for_dead_stops(gs: Path):
    with claimed(gs, BEAT, SILENCE) as still_ours:
        still_ours()
        (claim,) = (name for name in claims(gs) if name.endswith(".claim"))
        (gs / LOCK / claim).unlink()
        deadline = time.monotonic() + 60
        while claims(gs) and time.monotonic() < deadline:
            time.sleep(BEAT)
        with pytest.raises(TrainingError, match="another one took the run over"):
            still_ours()
    assert claims(gs) == set()
