"""When a run should save and stop before it is done: it is told to, or its time is over."""

import os
import signal
import threading
import time
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Stopping:
    """Knows after which step to stop; the same step on every process. In force as a context.

    One process: SIGTERM sets a flag. Several: JAX's preemption service, which listens for SIGTERM on every process
    and agrees on the next step that all can reach (`multihost_utils.reached_preemption_sync_point`). SIGTERM is also
    how a Cloud TPU VM, GKE and SLURM announce a preemption. A process whose time is over sends itself the signal, so
    there is one way to agree.

    Args:
      began: `time.monotonic()` when this life of the run began.
      max_seconds: how long it may last; 0 for any time.
    """

    def __init__(self, began: float, max_seconds: float):
        self._deadline = began + max_seconds if max_seconds else float("inf")
        self._late = self._signalled = False
        self._ours = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Stopping":
        if self._ours:
            self._previous = signal.signal(signal.SIGTERM, self._note_signal)
        return self

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signalled = True

    def __exit__(self, *exc: object) -> None:
        if self._ours:
            signal.signal(signal.SIGTERM, self._previous)

    def reason(self, step: int) -> str:
        """Why to stop after `step`; "" to go on. Every process asks once a step."""
        if not self._late and time.monotonic() >= self._deadline:
            self._late = True
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)
        if jax.process_count() > 1:
            stop = multihost_utils.reached_preemption_sync_point(step)
        else:
            stop = self._signalled or self._late
        if not stop:
            return ""
        return "config.max_seconds" if self._late else "SIGTERM (a preemption notice)"
