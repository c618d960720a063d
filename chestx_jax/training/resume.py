"""A training state to a checkpoint and back."""

import logging
from typing import Any

import jax
from ml_collections import ConfigDict

from chestx_jax.data.pipeline import Pipeline
from chestx_jax.training.state import TrainState
from chestx_jax.weights import Checkpoints

log = logging.getLogger(__name__)

# What may change between one run of the line and the next. The data are compared by the pipeline's fingerprint.
FREE_FIELDS = (
    *("data", "mesh", "steps", "save_every", "eval_every", "keep"),
    *("table_every", "table_prompts", "validation_batch"),  # of GRPO
)


def identity(config: ConfigDict) -> dict[str, Any]:
    """The part of a config that makes two runs the same run."""
    return {key: value for key, value in config.to_dict().items() if key not in FREE_FIELDS}


class Saver:
    """Saves states of one run, and finds the newest again."""

    def __init__(self, checkpoints: Checkpoints, meta: dict[str, Any]):
        self._checkpoints, self._meta = checkpoints, meta

    def save(self, step: int, state: TrainState, data_state: dict[str, Any]) -> None:
        """Start writing `state` in the background; a step that is on disk already is left as it is."""
        if step not in self._checkpoints.steps():
            self._checkpoints.save(step, _as_dict(state), data_state, self._meta)

    def resume(self, fresh: TrainState, batches: Pipeline) -> tuple[TrainState, int]:
        """The newest saved state with its number of updates, its batches set to what comes next; or `fresh`, 0.

        Raises:
          CheckpointError: the checkpoint is of another run; names the fields that differ.
          PipelineError: its data are not these.
        """
        step = self._checkpoints.latest_step()
        if step is None:
            return fresh, 0
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _as_dict(fresh)
        )
        restored = self._checkpoints.restore(step, abstract, self._meta)
        batches.set_state(restored.data_state)
        log.info("resuming after step %d", step)
        return fresh.load(restored.state), step


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {"params": state.params(), "opt_state": state.opt_state, "step": state.step}
