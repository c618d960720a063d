"""Where numbers go: metrics.jsonl and TensorBoard's files hold the same, whole rows only."""

import errno
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from chestx_jax.training import metrics
from chestx_jax.training.metrics import MetricWriter, read_rows


def curve(workdir: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard draws."""
    found = EventAccumulator(str(workdir / "tensorboard")).Reload()
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_tensorboard_draws_what_metrics_jsonl_holds(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path, 0)
    for step in (1, 2):
        writer.write(step, {"train/loss": 0.5 / step, "train/lost": float("nan")})
    writer.close()
    assert curve(tmp_path, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert read_rows(tmp_path) == [{"step": 1, "train/loss": 0.5}, {"step": 2, "train/loss": 0.25}]


def test_a_resumed_run_takes_the_place_of_what_a_killed_one_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after step 3, resumed from the checkpoint of step 1."""
    for process, start, steps, loss in ((1, 0, (1, 2, 3), 9.0), (2, 1, (2, 3), 4.0)):
        monkeypatch.setattr(metrics.os, "getpid", lambda process=process: process)
        writer = MetricWriter(tmp_path, start)
        for step in steps:
            writer.write(step, {"train/loss": loss})
        writer.close()
    wanted = [(1, 9.0), (2, 4.0), (3, 4.0)]
    assert curve(tmp_path, "train/loss") == wanted
    assert [(row["step"], row["train/loss"]) for row in read_rows(tmp_path)] == wanted


def test_a_full_disk_leaves_whole_rows(tmp_path: Path) -> None:
    """A row of which only a part found room is taken back, and the run is told."""

    class Full:
        """A file on a disk that has room for ten bytes more."""

        def __init__(self, file):
            self._file, self.name, self.fileno, self.truncate = file, file.name, file.fileno, file.truncate

        def write(self, data: bytes) -> int:
            return self._file.write(data[:10])

    writer = MetricWriter(tmp_path, 0)
    writer.write(1, {"loss": 1.0})
    rows, board = writer._rows, writer._board
    for name, file in (("_rows", rows), ("_board", board)):
        size = Path(file.name).stat().st_size
        setattr(writer, name, Full(file))
        with pytest.raises(OSError, match="No space left") as caught:
            writer.write(2, {"loss": 1.0})
        assert caught.value.errno == errno.ENOSPC and caught.value.filename == file.name
        assert Path(file.name).stat().st_size == size
        setattr(writer, name, file)
    writer.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,  # its row was whole; TensorBoard's was not
    ]
    assert curve(tmp_path, "loss") == [(1, 1.0)]
