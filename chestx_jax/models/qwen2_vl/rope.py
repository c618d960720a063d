"""Rotary position embeddings: three streams for the language model, two axes for the vision tower."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from chestx_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig

# cosines and sines, float32, of one half of the head; the other half is the same
Rotary = tuple[Float[Array, "B 1 T H/2"], Float[Array, "B 1 T H/2"]]


def _inverse_frequencies(theta: float, dim: int) -> Float[np.ndarray, " dim/2"]:
    return 1.0 / (np.float32(theta) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)))


def _rotary(angles: Float[Array, "B T H/2"]) -> Rotary:
    return jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]


def text_rotary(config: Qwen2VLConfig, positions: Int[Array, "B 3 T"]) -> Rotary:
    """M-RoPE (Qwen2-VL, arXiv 2409.12191, section 2.1); equals `Qwen2VLRotaryEmbedding`.

    Frequency i turns with the time, height or width position, by the section of `mrope_section` it is in.
    """
    stream = np.repeat(np.arange(3), config.mrope_section)
    chosen = positions[:, stream].swapaxes(1, 2).astype(jnp.float32)
    return _rotary(chosen * _inverse_frequencies(config.rope_theta, config.head_dim))


def vision_rotary(config: VisionConfig, patch_hw: Int[Array, "B P 2"]) -> Rotary:
    """Half of the frequencies turn with the row, half with the column: `Qwen2VLVisionRotaryEmbedding`."""
    frequencies = _inverse_frequencies(config.rope_theta, config.head_dim // 2)
    angles = patch_hw.astype(jnp.float32)[..., None] * frequencies
    return _rotary(angles.reshape(*patch_hw.shape[:2], -1))


def rotate(x: Float[Array, "B N T H"], rotary: Rotary) -> Float[Array, "B N T H"]:
    """Turns the pairs (i, i + H/2) of every head, in float32; equals `apply_rotary_pos_emb`."""
    cos, sin = rotary
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
