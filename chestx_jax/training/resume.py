"""A training state to a checkpoint and back."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from chestx_jax.data.pipeline import Pipeline
from chestx_jax.parallel import agree
from chestx_jax.training.state import TrainingError, TrainState
from chestx_jax.weights import Checkpoints

log = logging.getLogger(__name__)

# What may change between one run of the line and the next. The data are compared by the pipeline's fingerprint.
FREE_FIELDS = (
    *("data", "mesh", "steps", "save_every", "eval_every", "keep", "keep_best"),
    *("max_seconds", "guard", "profile_steps"),
    *("table_every", "table_prompts", "validation_batch"),  # of GRPO
)


def identity(config: ConfigDict) -> dict[str, Any]:
    """The part of a config that makes two runs the same run."""
    found = {key: value for key, value in config.to_dict().items() if key not in FREE_FIELDS}
    del found["optimizer"]["offload"]  # where moments lie, not what they are
    if "rollout" in found:
        del found["rollout"]["tensor"]  # a mesh, as `mesh` is
    return found


class Saver:
    """Saves states of one run, and finds the newest again. A context: leaving it waits for the last save.

    Raises:
      TrainingError: `keep_best` makes no sense.
    """

    def __init__(self, workdir: Path, config: ConfigDict):
        self._metric, self._direction = config.keep_best.metric, config.keep_best.direction
        _check_keep_best(config)
        self._score = f"{self._direction} {self._metric}" if self._metric else ""
        self._checkpoints = Checkpoints(workdir, keep=config.keep, best=self._score)
        self._meta = identity(config)

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *exc: object) -> None:
        self._checkpoints.close()

    def save(
        self, step: int, state: TrainState, data_state: dict[str, Any], evaluated: Mapping[str, float]
    ) -> None:
        """Start writing `state` in the background; a step that is on disk already is left as it is.

        Args:
          evaluated: what this very state was found to score, `eval/name` -> value; empty where it was not.

        Raises:
          TrainingError: `keep_best.metric` is not among what was evaluated.
        """
        if step not in self._checkpoints.steps():
            self._checkpoints.save(step, _as_dict(state), data_state, self._meta, self._scores(evaluated))

    def _scores(self, evaluated: Mapping[str, float]) -> dict[str, float]:
        if not self._metric or not evaluated:
            return {}
        if self._metric not in evaluated:
            raise TrainingError(
                f"config.keep_best.metric is {self._metric!r}; an evaluation of this run gives "
                f"{', '.join(sorted(evaluated))}"
            )
        value = evaluated[self._metric]
        return {self._score: value if self._direction == "min" else -value}

    def resume(self, fresh: TrainState, batches: Pipeline) -> tuple[TrainState, int]:
        """The newest whole saved state with its number of updates, its batches set to what comes next; or `fresh`, 0.

        Raises:
          CheckpointError: the checkpoint is of another run (names the fields that differ), or all are damaged.
          PipelineError: its data are not these.
          ClusterError: the processes find different checkpoints, or different data; names which.
        """
        data = {f"data {name}": value for name, value in batches.fingerprint.items()}
        agree({"newest checkpoint": self._checkpoints.latest_step(), **data})
        step = self._checkpoints.sound_step()
        if step is None:
            log.info("no checkpoint yet: from step 0")
            return fresh, 0
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _as_dict(fresh)
        )
        restored = self._checkpoints.restore(step, abstract, self._meta)
        batches.set_state(restored.data_state)
        log.info("resuming after step %d", step)
        return fresh.load(restored.state), step


def _check_keep_best(config: ConfigDict) -> None:
    metric, direction = config.keep_best.metric, config.keep_best.direction
    if direction not in ("min", "max"):
        raise TrainingError(f"config.keep_best.direction is {direction!r}; it can be 'min' or 'max'")
    if metric and config.eval_every % config.save_every:
        raise TrainingError(
            f"config.keep_best.metric keeps the best of the checkpoints that are evaluated: eval_every="
            f"{config.eval_every} must be a multiple of save_every={config.save_every}"
        )


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {"params": state.params(), "opt_state": state.opt_state, "step": state.step}
