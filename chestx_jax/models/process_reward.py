"""The process reward model: Qwen2-VL with a verdict on every step, in one forward pass.

The head reads the final state of the last token of each step: by then the trunk has read images, question and the
reasoning up to there, and nothing behind it. No separator token is added, so what is judged is the text as the
policy writes it.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.models.qwen2_vl.layers import Init, Linear
from chestx_jax.models.qwen2_vl.model import Batch

VERDICTS = ("supported", "contradicted", "not verifiable")


def add_step_head(model: Qwen2VL) -> None:
    """Puts a linear head on the final states; it starts at zero, so that every verdict is as likely as any."""
    kernel = model.text.norm.scale
    init = Init(nnx.Rngs(0), 0.0, jnp.float32, kernel.dtype)
    model.step_head = Linear(model.config.hidden_size, len(VERDICTS), init, units=1)


def step_logits(model: Qwen2VL, batch: Batch, step_ends: Int[Array, "B S"]) -> Float[Array, "B S 3"]:
    """Float32 scores of `VERDICTS` for each step.

    Args:
      batch: as for `Qwen2VL`; prompt and reasoning.
      step_ends: index of each step's last token, -1 where there is no step (what comes out there means nothing).

    Raises:
      ValueError: the model has no step head.
    """
    if model.step_head is None:
        raise ValueError("the model has no step head (add_step_head)")
    hidden = model.hidden(batch)
    states = jnp.take_along_axis(hidden, jnp.maximum(step_ends, 0)[..., None], axis=1)
    return model.step_head(states.astype(jnp.float32), out_dtype=jnp.float32)
