"""Weights in and out: Hugging Face directories and training checkpoints."""

from chestx_jax.weights.checkpoints import Checkpoints, Restored
from chestx_jax.weights.export import save_pretrained
from chestx_jax.weights.model_files import Adapter, WeightsError, read_config, write_model_files
from chestx_jax.weights.pretrained import load_pretrained
from chestx_jax.weights.step_directories import MODEL, CheckpointError, companions, find_step
from chestx_jax.weights.stored_arrays import restore_params

__all__ = [
    "MODEL",
    "Adapter",
    "CheckpointError",
    "Checkpoints",
    "Restored",
    "WeightsError",
    "companions",
    "find_step",
    "load_pretrained",
    "read_config",
    "restore_params",
    "save_pretrained",
    "write_model_files",
]
