"""Where numbers go: TensorBoard files, `metrics.jsonl`, and one line on the terminal."""

import errno
import json
import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from chestx_jax.parallel import is_first
from chestx_jax.weights.model_files import write_atomically

METRICS = "metrics.jsonl"

Row = dict[str, Any]
log = logging.getLogger(__name__)


class MetricWriter:
    """Writes scalars under `workdir`; a resumed run drops the lines that it is about to write again."""

    def __init__(self, workdir: Path, resume_step: int):
        path = workdir / METRICS
        keep_lines_until(path, resume_step)
        self._rows = path.open("ab", buffering=0)
        board = workdir / "tensorboard"
        board.mkdir(exist_ok=True)
        own = f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._board = (board / f"events.out.tfevents.{own}").open("ab", buffering=0)
        self._event(file_version="brain.Event:2")
        # hides what a killed run wrote beyond the checkpoint that this run starts from
        self._event(step=resume_step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One row, `{"step": .., "prefix/name": ..}`, unless there is nothing to say.

        Numbers that are not finite are left out: JSON has none. A row is written whole or, with an OSError, not at all.
        """
        named = {name: float(value) for name, value in scalars.items() if math.isfinite(value)}
        if not named:
            return
        _append(self._rows, (json.dumps({"step": step, **named}) + "\n").encode())
        values = [Summary.Value(tag=name, simple_value=value) for name, value in named.items()]
        self._event(step=step, summary=Summary(value=values))

    def _event(self, **fields: Any) -> None:
        record = BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **fields).SerializeToString())
        _append(self._board, record.getvalue())

    def close(self) -> None:
        """No more is written."""
        self._rows.close()
        self._board.close()


def _append(file: FileIO, row: bytes) -> None:
    size = os.fstat(file.fileno()).st_size
    try:
        if file.write(row) != len(row):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    except OSError:
        file.truncate(size)
        raise


class NoWriter(MetricWriter):
    """Writes nothing: for all processes of a run but the first."""

    def __init__(self) -> None:
        pass

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def open_writer(workdir: Path, resume_step: int) -> MetricWriter:
    """The first process's `MetricWriter`, or the `NoWriter` of another."""
    return MetricWriter(workdir, resume_step) if is_first() else NoWriter()


def read_rows(workdir: Path) -> list[Row]:
    """The rows of a run's metrics.jsonl, also while it is written; a torn one is left out."""
    path = workdir / METRICS
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def keep_lines_until(path: Path, step: int) -> None:
    """Drop the rows of `path` beyond `step`, and a last row that a kill cut in half."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            log.warning("%s: dropped a row that was cut short", path)
            continue
        if row["step"] <= step:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept).encode())


class Progress:
    """The progress line: step, loss, tokens a second, time left."""

    def __init__(self, start: int, steps: int, every_seconds: float = 10.0):
        self._start, self._steps, self._every = start, steps, every_seconds
        self._began = self._printed = time.monotonic()
        self._tokens = 0.0
        self._tokens_printed = 0.0

    def update(self, step: int, loss: float, tokens: float) -> None:
        """Count a finished step (`step` counts from 1) and print when it is time."""
        now = time.monotonic()
        if step == self._start + 1:  # compilation is over; rates count from here
            self._began = self._printed = now
            log.info("step %d/%d  loss %.4f  (compiled)", step, self._steps, loss)
            return
        self._tokens += tokens
        if now - self._printed < self._every and step != self._steps:
            return
        done = step - self._start - 1
        left = (now - self._began) / done * (self._steps - step)
        rate = (self._tokens - self._tokens_printed) / max(now - self._printed, 1e-9)
        log.info("step %d/%d  loss %.4f  %.0f tokens/s  %s left", step, self._steps, loss, rate, clock(left))
        self._printed, self._tokens_printed = now, self._tokens


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
