"""Log-probabilities and entropy of responses from hidden states, in chunks along time."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.rollout import Sampling
from chestx_jax.rollout.sampling import sampling_logprobs


def token_logprobs(
    logits_fn: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    hidden: Float[Array, "B T D"],
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    sampling: Sampling,
    chunk: int,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """log p(token) under the distribution that tokens are drawn from, and the entropy of softmax(logits / T) over
    the full vocabulary; both float32, 0 off the mask.

    The logits of a chunk are made, used and forgotten, and made again in the backward pass: a full [B, T, V] array
    never exists.

    Args:
      logits_fn: float32 logits of hidden states (`Qwen2VL.logits`).
      hidden: final-norm states; the state at t predicts the token at t (`continuation_hidden`).
      sampling: as the tokens were drawn, temperature and filters included.
      chunk: positions whose logits exist at a time.
    """
    batch, length = tokens.shape
    chunk = min(chunk, length)
    padding = -length % chunk

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(batch, -1, chunk, *x.shape[2:]).swapaxes(0, 1)

    def join(x: Float[Array, "K B C"]) -> Float[Array, "B T"]:
        return jnp.where(mask, x.swapaxes(0, 1).reshape(batch, -1)[:, :length], 0)

    @partial(jax.checkpoint, prevent_cse=False)
    def step(_: None, part: tuple[Array, Array, Array]) -> tuple[None, tuple[Array, Array]]:
        h, y, m = part
        logits = logits_fn(jnp.where(m[..., None], h, 0))
        drawn = sampling_logprobs(logits, sampling, drawn=y)
        is_token = jax.lax.broadcasted_iota(y.dtype, drawn.shape, 2) == y[..., None]
        logprobs = jnp.where(is_token, drawn, 0).sum(axis=-1)  # its gradient is no scatter
        every = jax.nn.log_softmax(logits / (sampling.temperature or 1.0), axis=-1)
        return None, (logprobs, -(jnp.exp(every) * every).sum(axis=-1))

    _, (logprobs, entropy) = jax.lax.scan(step, None, (split(hidden), split(tokens), split(mask)))
    return join(logprobs), join(entropy)
