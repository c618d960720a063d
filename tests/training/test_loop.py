"""What the loop saves when its input fails, and what it writes down; without a model."""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from chestx_jax.data.pipeline import PipelineError
from chestx_jax.parallel.chips import peak_flops
from chestx_jax.storage import Mirror
from chestx_jax.training import timing
from chestx_jax.training.lock import holder
from chestx_jax.training.loop import Hooks, Preempted, train
from chestx_jax.training.metrics import MetricWriter
from chestx_jax.training.profile import Profile
from chestx_jax.training.sft import make_evaluate
from chestx_jax.training.state import TrainingError
from chestx_jax.training.status import status
from chestx_jax.training.workdir import Life, open_workdir, read_lives
from configs.common import guard, keep_best

NO_PROFILE = Profile("", Path())
CONFIG = ConfigDict(dict(steps=9, save_every=2, eval_every=9, max_seconds=0.0, guard=guard()))


class Batches:
    """Batches 1, 2, ..; the one called `broken` cannot be made."""

    def __init__(self, broken: int):
        self.taken, self._broken = 0, broken

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.taken + 1 == self._broken:
            raise PipelineError("samples.jsonl: sample 's', field images[0]: torn")
        self.taken += 1
        return SimpleNamespace(ids=(f"s{self.taken}",))

    def get_state(self) -> dict[str, Any]:
        return {"next_step": self.taken}

    def close(self) -> None: ...


def saved_by(tmp_path: Path, *, start: int, broken: int, nan_at: int = 0) -> list[tuple[int, int, int]]:
    """(step, updates in the state, next batch) of every save of a run that ends with an error."""
    saves: list[tuple[int, int, int]] = []

    def step(state: Any, batch: Any) -> tuple[Any, dict[str, float]]:
        loss = float("nan") if state + 1 == nan_at else 1.0
        return state + 1, {
            "loss": loss,
            "grad_norm": 1.0,
            "tokens": 8.0,
            "skipped": float(loss != loss),
            "skipped_in_row": float(loss != loss),
        }

    hooks = Hooks(
        train_step=step,
        save=lambda step, state, data, evaluated: saves.append((step, state, data["next_step"])),
        evaluate=lambda step, state: {},
        flops=lambda batch: 0.0,
    )
    batches, writer = Batches(broken), MetricWriter(tmp_path, start)
    batches.taken = start
    try:
        with pytest.raises(TrainingError if nan_at else PipelineError):
            train(
                start,
                batches,
                hooks,
                CONFIG,
                start=start,
                life=Life(time.monotonic(), Mirror(tmp_path)),
                writer=writer,
                profile=Profile("", tmp_path),
            )
    finally:
        writer.close()
    return saves


def test_what_was_done_before_a_broken_batch_is_saved(tmp_path: Path) -> None:
    assert saved_by(tmp_path, start=0, broken=4) == [(2, 2, 2), (3, 3, 3)]


def test_nothing_is_saved_where_nothing_was_done(tmp_path: Path) -> None:
    assert saved_by(tmp_path, start=4, broken=5) == []


def test_a_broken_batch_behind_a_loss_that_is_not_finite_saves_nothing(tmp_path: Path) -> None:
    assert saved_by(tmp_path, start=0, broken=4, nan_at=3) == [(2, 2, 2)]


def test_without_validation_samples_no_figure_is_written(tmp_path: Path) -> None:
    """A mean over nothing would be a NaN, which is no JSON."""
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, make_evaluate(None, None, [], 8)(1, None))
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def run_with(tmp_path: Path, losses: list[float], stop_after: int) -> list[dict[str, Any]]:
    """The rows of a run with these losses; the updates of losses that are not finite are skipped."""
    skipped = [sum(loss != loss for loss in losses[: n + 1]) for n in range(len(losses))]
    rows = []
    for n, loss in enumerate(losses):
        in_row = 0 if loss == loss else 1 + (rows[-1]["skipped_in_row"] if rows else 0)
        rows.append(
            {"loss": loss, "grad_norm": loss, "tokens": 8.0, "skipped": skipped[n], "skipped_in_row": in_row}
        )
    config = ConfigDict(
        {**CONFIG.to_dict(), "steps": len(losses), "guard": guard(stop_after=stop_after).to_dict()}
    )
    hooks = Hooks(
        train_step=lambda state, batch: (state + 1, rows[state]),
        save=lambda *_: None,
        evaluate=lambda step, state: {},
        flops=lambda batch: 0.0,
    )
    tmp_path.mkdir()
    writer = MetricWriter(tmp_path, 0)
    try:
        train(
            0,
            Batches(0),
            hooks,
            config,
            start=0,
            life=Life(time.monotonic(), Mirror(tmp_path)),
            writer=writer,
            profile=Profile("", tmp_path),
        )
    finally:
        writer.close()
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_skipped_updates_are_counted_and_named_and_stop_the_run_when_there_are_too_many(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nan = float("nan")
    rows = run_with(tmp_path / "few", [1.0, nan, 1.0, nan, nan], stop_after=3)
    assert [row["train/skipped"] for row in rows] == [0, 1, 1, 2, 3]
    assert "train/loss" not in rows[1] and rows[2]["train/loss"] == 1.0
    assert "step 2: loss is nan, grad_norm is nan; the batch held samples s2." in caplog.text
    with pytest.raises(TrainingError, match=r"step 3: .* samples s3\. 2 updates in a row were skipped"):
        run_with(tmp_path / "many", [1.0, nan, nan, 1.0], stop_after=2)


def test_a_run_whose_time_is_over_saves_and_stops(tmp_path: Path) -> None:
    saves = []
    hooks = Hooks(
        train_step=lambda state, batch: (
            state + 1,
            {"loss": 1.0, "grad_norm": 1.0, "tokens": 8.0, "skipped": 0.0, "skipped_in_row": 0.0},
        ),
        save=lambda step, state, data, evaluated: saves.append((step, state, data["next_step"])),
        evaluate=lambda step, state: {},
        flops=lambda batch: 0.0,
    )
    writer = MetricWriter(tmp_path, 0)
    config = ConfigDict({**CONFIG.to_dict(), "max_seconds": 60.0})
    with pytest.raises(Preempted, match=r"config\.max_seconds after step 1, which is saved"):
        train(
            0,
            Batches(0),
            hooks,
            config,
            start=0,
            life=Life(time.monotonic() - 61, Mirror(tmp_path)),
            writer=writer,
            profile=Profile("", tmp_path),
        )
    writer.close()
    assert saves == [(1, 1, 1)]


def test_a_row_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """The disk fills up in the middle of a row."""
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, {"train/loss": 1.0})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(OSError):
            writer.write(2, {"train/loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    writer.close()


def open_and_fail(workdir: Path, error: OSError) -> None:
    with open_workdir(workdir, CONFIG):
        raise error


def test_a_workdir_has_one_program_at_a_time(tmp_path: Path) -> None:
    """The lock of a program that was killed is free; what is left in the file does not matter."""
    program = (
        "import sys, time; from pathlib import Path; from chestx_jax.training.lock import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        assert holder(tmp_path) == {"host": socket.gethostname(), "pid": other.pid}
        with pytest.raises(TrainingError, match=rf"in use by process {other.pid} on {socket.gethostname()}"):
            open_and_fail(tmp_path, OSError())
        other.kill()
    assert holder(tmp_path) is None
    with open_workdir(tmp_path, CONFIG):
        assert holder(tmp_path) == {"host": socket.gethostname(), "pid": os.getpid()}


def test_how_a_life_ended_is_noted_and_a_full_disk_is_told_plainly(tmp_path: Path) -> None:
    with open_workdir(tmp_path, CONFIG):
        pass
    with pytest.raises(
        TrainingError, match=r"No space left on device.*Free some space, then run the same line"
    ):
        open_and_fail(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(PermissionError):  # of somebody else's file
        open_and_fail(tmp_path, PermissionError(errno.EACCES, "Permission denied", "/data/image.png"))
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="Give another --workdir"):
        open_and_fail(tmp_path / "file" / "run", OSError())
    ends = [life["ended"] for life in read_lives(tmp_path)]
    assert ends[0] == "done" and ends[1].startswith("OSError") and ends[2].startswith("PermissionError")


def test_where_a_run_stands_is_read_from_its_files(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no run"):
        status(tmp_path)
    config = ConfigDict({**CONFIG.to_dict(), "keep_best": keep_best().to_dict()})
    with open_workdir(tmp_path, config):
        assert status(tmp_path)[:2] == [
            "step 0 of 9",
            f"running: process {os.getpid()} on {socket.gethostname()}",
        ]
        writer = MetricWriter(tmp_path, 0)
        writer.write(3, {"train/loss": 1.5, "perf/goodput": 0.5, "perf/seconds/step": 4.0})
        writer.write(3, {"eval/loss": 2.5})
        writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')  # being written
    told = status(tmp_path)
    assert told[:2] == ["step 3 of 9", "done"]
    assert "train/loss=1.5" in told[2] and "eval/loss=2.5" in told[3] and told[4] == "no checkpoint yet"
    assert "1 lives; 0:04 in steps that were kept" in told[5]
    with pytest.raises(ZeroDivisionError), open_workdir(tmp_path, config):
        raise ZeroDivisionError("by nought")
    assert "stopped: ZeroDivisionError: by nought" in status(tmp_path)[1]
    lives = read_lives(tmp_path)
    del lives[-1]["ended"]
    (tmp_path / "run.json").write_text(json.dumps(lives))
    assert "stopped: it was killed" in status(tmp_path)[1]


def test_where_the_time_goes_and_what_the_device_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds since the start, four of them in a step of 800 tokens and 4e14 operations on a v5e of 197e12."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(timing, "peak_flops", lambda kind: 197e12 / jax.device_count())
    clock = timing.Timing(0.0)
    for phase, seconds in ((timing.COMPILE, 3.0), (timing.EVAL, 2.0)):
        with clock.phase(phase):
            now[0] += seconds
    assert "tokens_per_second" not in clock.take(800, 4e14)  # compilation is no speed
    for phase, seconds in ((timing.DATA_WAIT, 1.0), (timing.STEP, 4.0)):
        with clock.phase(phase):
            now[0] += seconds
    told = clock.take(800, 4e14)
    assert told["seconds/step"] == 4.0 and told["data_wait_share"] == 0.1 and told["goodput"] == 0.4
    assert told["tokens_per_second"] == 160 and told["mfu"] == pytest.approx(4e14 / 5 / 197e12)
    monkeypatch.undo()
    assert peak_flops("TPU v5 lite") == 197e12 and peak_flops("cpu") is None


@pytest.mark.parametrize("steps", ["3", "5:4", "a:b"])
def test_steps_to_profile_are_checked(steps: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="profile_steps"):
        Profile(steps, tmp_path)
