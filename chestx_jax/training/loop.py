"""The training loop that every recipe shares.

Step N is dispatched before the metrics of step N - 1 are read, so the device never waits for the host to look
at a number. A checkpoint is written only after the losses up to it have been seen to be finite.
"""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import jax

from chestx_jax.data.stream import PipelineError
from chestx_jax.training.metrics import MetricWriter, Progress
from chestx_jax.training.state import TrainingError, TrainState

log = logging.getLogger(__name__)

EXIT_PREEMPTED = 75  # EX_TEMPFAIL: a scheduler should run the same line again


class BatchStream(Protocol):
    """What the loop asks of a data iterator: batches, and a state that can be saved."""

    def __next__(self) -> Any: ...
    def get_state(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Hooks:
    """What a recipe plugs into the loop.

    Attributes:
      train_step: (state, batch) -> (state, metrics); dispatches device work and returns without waiting.
      save: (step, state, data_state, evaluated) -> None; `step` counts finished updates, `evaluated` is what this
        state was just found to score (`eval/name` -> value), or empty.
      evaluate: (step, state) -> scalars, under the name "eval".
    """

    train_step: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, jax.Array]]]
    save: Callable[[int, TrainState, dict[str, Any], Mapping[str, float]], None]
    evaluate: Callable[[int, TrainState], Mapping[str, float]]


class Preempted(Exception):
    """SIGTERM came; the state was saved at the step in the message and the same line resumes."""


class _SigtermFlag:
    """Set by SIGTERM while in force; the loop looks at it between steps."""

    def __enter__(self) -> "_SigtermFlag":
        self.raised = False
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._previous = signal.signal(signal.SIGTERM, self._raise)
        return self

    def _raise(self, signum: int, frame: FrameType | None) -> None:
        self.raised = True

    def __exit__(self, *exc: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._previous)


@dataclass
class _Pending:
    """A dispatched step whose metrics nobody has read yet."""

    step: int
    metrics: Mapping[str, jax.Array]
    ids: tuple[str, ...]
    data_wait: float


def train(
    state: TrainState,
    batches: BatchStream,
    hooks: Hooks,
    *,
    start: int,
    steps: int,
    save_every: int,
    eval_every: int,
    writer: MetricWriter,
) -> TrainState:
    """Run updates `start` + 1 to `steps`; saves and evaluates on the way and at the end.

    Raises:
      PipelineError: a batch that cannot be made; in a run of one process what was done before is saved.
      TrainingError: when a loss or gradient norm is not finite; names the step and the samples. The
        checkpoints from before it stay, and none is written after it.
      Preempted: after SIGTERM, once the state is saved.
    """
    progress = Progress(start, steps)
    pending: _Pending | None = None
    with _SigtermFlag() as sigterm:
        for step in range(start + 1, steps + 1):
            began = time.monotonic()
            try:
                batch = next(batches)
            except PipelineError:
                # a save takes all processes, and only this one knows of the error
                if step > start + 1 and jax.process_count() == 1:
                    if pending is not None:
                        _report(pending, writer, progress)
                    hooks.save(step - 1, state, batches.get_state(), {})
                    log.warning("step %d is saved; mend the input and run the same line to resume", step - 1)
                raise
            data_wait = time.monotonic() - began
            state, metrics = hooks.train_step(state, batch)
            if pending is not None:
                _report(pending, writer, progress)
            pending = _Pending(step, metrics, batch.ids, data_wait)
            due = step % save_every == 0 or step == steps or sigterm.raised
            if due or step % eval_every == 0:
                _report(pending, writer, progress)
                pending = None
            evaluated = {}
            if step % eval_every == 0 or step == steps:
                evaluated = {f"eval/{name}": value for name, value in hooks.evaluate(step, state).items()}
                writer.write(step, evaluated)
            if due:
                hooks.save(step, state, batches.get_state(), evaluated)
            if sigterm.raised:
                raise Preempted(
                    f"stopped by SIGTERM after step {step}, which is saved; run the same line to resume"
                )
    return state


def _report(pending: _Pending, writer: MetricWriter, progress: Progress) -> None:
    scalars = {name: float(value) for name, value in jax.device_get(pending.metrics).items()}
    bad = sorted(name for name in ("loss", "grad_norm") if not math.isfinite(scalars[name]))
    if bad:
        raise TrainingError(
            f"step {pending.step}: {', '.join(f'{name} is {scalars[name]}' for name in bad)}; the batch held samples "
            f"{', '.join(pending.ids)}. Nothing after the last checkpoint was saved"
        )
    scalars["data_wait_seconds"] = pending.data_wait
    writer.write(pending.step, {f"train/{name}": value for name, value in scalars.items()})
    progress.update(pending.step, scalars["loss"], scalars["tokens"])
    if pending.data_wait > 1.0 and pending.step > 2:
        log.warning("step %d waited %.1f s for data", pending.step, pending.data_wait)
