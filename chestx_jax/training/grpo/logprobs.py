"""Log-probabilities and entropy of responses from hidden states, in chunks along time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.rollout import Sampling
from chestx_jax.rollout.sampling import EXCLUDED, permitted, scale, threshold


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

    parts = split(jnp.where(mask[..., None], hidden, 0)), split(tokens)
    # the weights that `logits_fn` closes over become arguments, for they have gradients
    head, weights = jax.closure_convert(logits_fn, parts[0][0])

    def step(_: None, part: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        return None, _score(head, sampling, *part, weights)

    _, (logprobs, entropy) = jax.lax.scan(step, None, parts)
    return join(logprobs), join(entropy)


Weights = list[Array]
Head = Callable[..., Float[Array, "B C V"]]
Scores = tuple[Float[Array, "B C"], Float[Array, "B C"]]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _score(
    head: Head, sampling: Sampling, hidden: Float[Array, "B C D"], tokens: Int[Array, "B C"], weights: Weights
) -> Scores:
    """Log-probability of the tokens and entropy. Which tokens pass the filters has no gradient."""
    return _forward(head, sampling, hidden, tokens, weights)[0]


def _forward(
    head: Head, sampling: Sampling, hidden: Array, tokens: Array, weights: Weights
) -> tuple[Scores, Any]:
    scaled = scale(head(hidden, *weights), sampling)
    least = threshold(scaled, sampling)
    is_token, passes = _who(scaled, tokens, least, sampling)
    passing = jnp.where(passes, scaled, EXCLUDED)
    top = passing.max(axis=-1, keepdims=True)
    exponential = _exp(scaled - top)
    total = exponential.sum(axis=-1)
    log_passing = top[..., 0] + jnp.log(jnp.where(passes, exponential, 0).sum(axis=-1))
    log_total = top[..., 0] + jnp.log(total)
    logprobs = jnp.where(is_token, passing, 0).sum(axis=-1) - log_passing
    entropy = log_total - (exponential * scaled).sum(axis=-1) / total
    return (logprobs, entropy), (hidden, tokens, weights, least, log_passing, log_total, entropy)


def _backward(head: Head, sampling: Sampling, saved: Any, above: Scores) -> tuple[Array, None, Weights]:
    """The logits once more, and their gradient by hand: half the time of deriving `_forward` on a CPU."""
    hidden, tokens, weights, least, *sums = saved
    log_passing, log_total, entropy, to_logprobs, to_entropy = (x[..., None] for x in (*sums, *above))
    logits, pull = jax.vjp(head, hidden, *weights)
    scaled = scale(logits, sampling)
    is_token, passes = _who(scaled, tokens, least, sampling)
    probability = _exp(scaled - log_passing)
    slope = to_logprobs * (is_token - jnp.where(passes, probability, 0))
    every = probability * jnp.exp(log_passing - log_total)
    slope -= to_entropy * every * (scaled - log_total + entropy)
    d_hidden, *d_weights = pull((slope / (sampling.temperature or 1.0)).astype(logits.dtype))
    return d_hidden, None, d_weights


_score.defvjp(_forward, _backward)


def _who(
    scaled: Float[Array, "B C V"], tokens: Int[Array, "B C"], least: Float[Array, "B C 1"], sampling: Sampling
) -> tuple[Bool[Array, "B C V"], Bool[Array, "B C V"]]:
    """Which is the token, and which can be drawn: the token itself passed the filters when it was, and passes here
    too, also where a last bit of its logit says otherwise."""
    is_token = jax.lax.broadcasted_iota(tokens.dtype, scaled.shape, 2) == tokens[..., None]
    return is_token, ((scaled >= least) | is_token) & permitted(scaled.shape[-1], sampling)


def _exp(x: Float[Array, "B C V"]) -> Float[Array, "B C V"]:
    """Of differences to the likeliest token that can be drawn; a forbidden one may be far above it."""
    return jnp.exp(jnp.minimum(x, 80.0))
