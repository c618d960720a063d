"""Qwen2-VL in Flax NNX."""

from chestx_jax.models.qwen2_vl.attention import AttentionError
from chestx_jax.models.qwen2_vl.cache import KVCache
from chestx_jax.models.qwen2_vl.config import (
    QWEN2_VL_2B,
    QWEN2_VL_7B,
    SMALL,
    TINY,
    ConfigError,
    Qwen2VLConfig,
    VisionConfig,
)
from chestx_jax.models.qwen2_vl.model import Batch, Qwen2VL

__all__ = [
    "QWEN2_VL_2B",
    "QWEN2_VL_7B",
    "SMALL",
    "TINY",
    "AttentionError",
    "Batch",
    "ConfigError",
    "KVCache",
    "Qwen2VL",
    "Qwen2VLConfig",
    "VisionConfig",
]
