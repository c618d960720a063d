"""A trace of a few steps, for XProf or TensorBoard's profile page."""

import logging
import re
from pathlib import Path
from typing import Any

import jax

from chestx_jax.training.state import TrainingError

log = logging.getLogger(__name__)


class Profile:
    """Traces the steps from `first` to `last` (`config.profile_steps` = "first:last"; "" traces none) into
    `workdir/profile`.

    Raises:
      TrainingError: when `steps` is neither.
    """

    def __init__(self, steps: str, workdir: Path):
        match = re.fullmatch(r"(\d+):(\d+)", steps)
        if steps and (match is None or int(match[1]) > int(match[2])):
            raise TrainingError(f"config.profile_steps is {steps!r}; expected two steps as in '10:12', or ''")
        self._first, self._last = (int(match[1]), int(match[2])) if match else (0, 0)
        self._directory = workdir / "profile"
        self._running = False

    def before(self, step: int) -> None:
        """To be called before step `step` is dispatched."""
        if step == self._first:
            jax.profiler.start_trace(str(self._directory))
            self._running = True

    def after(self, step: int, metrics: Any) -> None:
        """To be called once it is; waits for the last one."""
        if self._running and step == self._last:
            jax.block_until_ready(metrics)
            self.close()
            log.info("steps %d to %d are traced in %s", self._first, self._last, self._directory)

    def close(self) -> None:
        """End a trace that is still being taken."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
