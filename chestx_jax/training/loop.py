"""The training loop that every recipe shares.

Step N is dispatched before the metrics of step N - 1 are read, so the device never waits for the host to look
at a number. A checkpoint is written only after the losses up to it have been seen to be finite, or their updates
skipped.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
from ml_collections import ConfigDict

from chestx_jax.data.stream import PipelineError
from chestx_jax.training.metrics import MetricWriter, Progress, open_writer
from chestx_jax.training.profile import Profile
from chestx_jax.training.state import TrainingError, TrainState
from chestx_jax.training.stopping import Stopping
from chestx_jax.training.timing import COMPILE, DATA_WAIT, EVAL, SAVE, STEP, Timing
from chestx_jax.training.workdir import Life

log = logging.getLogger(__name__)

EXIT_PREEMPTED = 75  # EX_TEMPFAIL: a scheduler should run the same line again


class BatchStream(Protocol):
    """What the loop asks of a data iterator: batches, and a state that can be saved."""

    def __next__(self) -> Any: ...
    def get_state(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Hooks:
    """What a recipe plugs into the loop.

    Attributes:
      train_step: (state, batch) -> (state, metrics); dispatches device work and returns without waiting.
      save: (step, state, data_state, evaluated) -> None; `step` counts finished updates, `evaluated` is what this
        state was just found to score (`eval/name` -> value), or empty.
      evaluate: (step, state) -> scalars, under the name "eval".
      flops: batch -> the operations that the model asks for in this step, on all devices (models/qwen2_vl/flops.py).
    """

    train_step: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, jax.Array]]]
    save: Callable[[int, TrainState, dict[str, Any], Mapping[str, float]], None]
    evaluate: Callable[[int, TrainState], Mapping[str, float]]
    flops: Callable[[Any], float]


class Preempted(Exception):
    """The run was told to stop, or its time is over; the state was saved at the step in the message and the same
    line resumes."""


@dataclass
class _Pending:
    """A dispatched step whose metrics nobody has read yet."""

    step: int
    metrics: Mapping[str, jax.Array]
    ids: tuple[str, ...]
    flops: float
    data_wait: float


def train_in(
    state: TrainState,
    batches: BatchStream,
    hooks: Hooks,
    config: ConfigDict,
    *,
    start: int,
    life: Life,
) -> TrainState:
    """`train` with the metrics and the trace that it writes among the run's files; these and `batches` are closed,
    however it ends. A checkpoint is written after the rows that lead to it have been brought where it goes.

    Raises:
      TrainingError: `config.profile_steps` makes no sense. What `train` raises.
    """
    here, save_state = life.files.here, hooks.save

    def save(step: int, state: TrainState, data_state: dict[str, Any], found: Mapping[str, float]) -> None:
        life.publish()
        save_state(step, state, data_state, found)

    with (
        closing(batches),
        closing(open_writer(here, start)) as writer,
        closing(Profile(config.profile_steps, here)) as profile,
    ):
        return train(
            state,
            batches,
            replace(hooks, save=save),
            config,
            start=start,
            life=life,
            writer=writer,
            profile=profile,
        )


def train(
    state: TrainState,
    batches: BatchStream,
    hooks: Hooks,
    config: ConfigDict,
    *,
    start: int,
    life: Life,
    writer: MetricWriter,
    profile: Profile,
) -> TrainState:
    """Run updates `start` + 1 to `config.steps`; saves and evaluates on the way and at the end.

    Args:
      config: `steps`, `save_every`, `eval_every`, `max_seconds` and `guard` of a recipe.

    Raises:
      PipelineError: a batch that cannot be made; in a run of one process what was done before is saved.
      TrainingError: when `guard.stop_after` updates in a row were skipped, because a gradient was not finite or far
        too large, or when a loss is not finite; names the step and the samples. The checkpoints from before it stay.
      Preempted: after SIGTERM or `max_seconds`, once the state is saved.
    """
    steps, timing = config.steps, Timing(life.began)
    report = _Report(writer, Progress(start, steps), timing, config.guard.stop_after)
    pending: _Pending | None = None
    with Stopping(life.began, config.max_seconds) as stopping:
        for step in range(start + 1, steps + 1):
            began = time.monotonic()
            try:
                with timing.phase(DATA_WAIT):
                    batch = next(batches)
            except PipelineError:
                # a save takes all processes, and only this one knows of the error
                if step > start + 1 and jax.process_count() == 1:
                    if pending is not None:
                        report(pending)
                    hooks.save(step - 1, state, batches.get_state(), {})
                    log.warning("step %d is saved; mend the input and run the same line to resume", step - 1)
                raise
            data_wait = time.monotonic() - began
            profile.before(step)
            with timing.phase(COMPILE if step == start + 1 else STEP):
                state, metrics = hooks.train_step(state, batch)
            if pending is not None:
                report(pending)
            profile.after(step, metrics)
            pending = _Pending(step, metrics, batch.ids, hooks.flops(batch), data_wait)
            why = stopping.reason(step)
            due = step % config.save_every == 0 or step == steps or bool(why)
            evaluating = step % config.eval_every == 0 or step == steps
            if due or evaluating:
                report(pending)
                pending = None
            evaluated = {}
            if evaluating:
                with timing.phase(EVAL):
                    found = hooks.evaluate(step, state)
                evaluated = {f"eval/{name}": value for name, value in found.items()}
                writer.write(step, evaluated)
            if due:
                with timing.phase(SAVE):
                    hooks.save(step, state, batches.get_state(), evaluated)
            if why:
                raise Preempted(
                    f"stopped by {why} after step {step}, which is saved; run the same line to resume"
                )
    return state


@dataclass
class _Report:
    """Writes what a step gave, and stops the run where it must not go on."""

    writer: MetricWriter
    progress: Progress
    timing: Timing
    stop_after: int
    skipped: float | None = None  # updates so far, in all lives

    def __call__(self, pending: _Pending) -> None:
        with self.timing.phase(STEP):  # until the device is done
            values = jax.device_get(pending.metrics)
        scalars = {name: float(value) for name, value in values.items()}
        self._guard(pending, scalars)
        told = self.timing.take(scalars["tokens"], pending.flops)
        self.writer.write(
            pending.step,
            {
                **{f"train/{name}": value for name, value in scalars.items()},
                **{f"perf/{name}": value for name, value in told.items()},
            },
        )
        self.progress.update(pending.step, scalars["loss"], scalars["tokens"])
        if pending.data_wait > 1.0 and pending.step > 2:
            log.warning("step %d waited %.1f s for data", pending.step, pending.data_wait)

    def _guard(self, pending: _Pending, scalars: Mapping[str, float]) -> None:
        before, self.skipped = self.skipped, scalars["skipped"]
        # a GRPO step makes several updates: one before its last may have been skipped alone
        alone = before is not None and scalars["skipped"] > before
        in_row = max(round(scalars["skipped_in_row"]), int(alone))
        bad = [
            f"{name} is {scalars[name]}" for name in ("loss", "grad_norm") if not math.isfinite(scalars[name])
        ]
        if not in_row and not bad:
            return
        what = ", ".join(bad) or f"the gradient norm {scalars['grad_norm']:.3g} is a spike"
        where = f"step {pending.step}: {what}; the batch held samples {', '.join(pending.ids)}"
        if in_row >= self.stop_after or not in_row:
            times = f"{in_row} updates in a row were skipped. " if in_row > 1 else ""
            raise TrainingError(f"{where}. {times}Nothing after the last checkpoint was saved")
        log.warning("%s. Its update is skipped (%d in a row)", where, in_row)
