"""Weights in and out: Hugging Face directories and training checkpoints."""

from chestx_jax.weights.checkpoints import (
    MODEL,
    CheckpointError,
    Checkpoints,
    Restored,
    companions,
    find_step,
    restore_params,
)
from chestx_jax.weights.export import save_pretrained
from chestx_jax.weights.model_files import Adapter, WeightsError, read_config, write_model_files
from chestx_jax.weights.pretrained import load_pretrained

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
