"""The process reward model: Qwen2-VL with a verdict on every step, in one forward pass.

The head reads two things. The final state of the last token of each step: by then the trunk has read images, question
and the reasoning up to there, and nothing behind it. And how likely the trunk finds the words of the step (the sum
and the least of their log-probabilities): what it sees in the images decides which words it expects, and that is
lost in the last token's state. The head starts from this doubt alone.

No separator token is added, so what is judged is the text as the policy writes it.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.models.qwen2_vl.layers import Init, Linear
from chestx_jax.models.qwen2_vl.model import Batch

VERDICTS = ("supported", "contradicted", "not verifiable")
_CHUNK = 256  # positions a row whose logits exist at a time, at most
_EVEN = -2.0  # log-probability of a step at which the untrained head cannot decide


def add_step_head(model: Qwen2VL) -> None:
    """Puts a linear head on final states and log-probabilities of steps. It starts from the trunk's own doubt: the
    less likely the words, the rather contradicted."""
    dtype = model.text.norm.scale.dtype
    width = model.config.hidden_size
    head = Linear(width + 2, len(VERDICTS), Init(nnx.Rngs(0), 0.0, jnp.float32, dtype), units=1)
    doubt = jnp.array([0.5, -0.5, 0.0], dtype)
    head.kernel.set_value(head.kernel[...].at[width].set(doubt))
    if head.bias is not None:
        head.bias.set_value(-_EVEN * doubt)
    model.step_head = head


def step_logits(
    model: Qwen2VL, batch: Batch, step_ids: Int[Array, "B T"], steps: int
) -> Float[Array, "B S 3"]:
    """Float32 scores of `VERDICTS` for each step.

    Args:
      batch: as for `Qwen2VL`; prompt and reasoning.
      step_ids: the step that each token belongs to, 0 .. S - 1; -1 for none.
      steps: S, the same for every batch of a program; what comes out for a step without tokens means nothing.

    Raises:
      ValueError: the model has no step head.
    """
    if model.step_head is None:
        raise ValueError("the model has no step head (add_step_head)")
    hidden = model.hidden(batch)
    inside = step_ids[:, :, None] == jnp.arange(steps)
    last = jnp.max(jnp.where(inside, jnp.arange(step_ids.shape[1])[:, None], 0), axis=1)
    states = jnp.take_along_axis(hidden, last[..., None], axis=1).astype(jnp.float32)
    logprobs = jnp.where(inside, token_logprobs(model, hidden, batch["tokens"])[..., None], 0.0)
    features = jnp.stack([logprobs.sum(axis=1), logprobs.min(axis=1)], axis=-1)
    return model.step_head(jnp.concatenate([states, features], axis=-1), out_dtype=jnp.float32)


def token_logprobs(
    model: Qwen2VL, hidden: Float[Array, "B T D"], tokens: Int[Array, "B T"]
) -> Float[Array, "B T"]:
    """Log-probability of each token given those before it, 0 for the first; logits are made chunk by chunk, and again
    in the backward pass."""
    length = tokens.shape[1]
    fewest = -(-length // _CHUNK)
    size = -(-length // fewest)  # evenly filled: padding costs a whole head
    padding = -length % size

    def chunks(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(len(x), -1, size, *x.shape[2:]), 1, 0)

    @partial(jax.checkpoint, prevent_cse=False)
    def chunk(part: tuple[Array, Array]) -> Array:
        states, wanted = part
        logits = model.logits(states)
        chosen = jnp.take_along_axis(logits, wanted[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    before = jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    found = jax.lax.map(chunk, (chunks(before), chunks(tokens)))
    joined = jnp.moveaxis(found, 0, 1).reshape(len(tokens), -1)[:, :length]
    return joined.at[:, 0].set(0.0)
