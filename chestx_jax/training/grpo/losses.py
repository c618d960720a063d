"""The policy's loss, token by token, and its sum over a batch: pure functions of log-probabilities.

Every array is [B, T] with a mask of the response's tokens, and is masked before anything else is done to it:
what stands in the padding, NaN included, reaches neither loss nor gradient. Facts: DeepSeekMath (arXiv
2402.03300), DAPO (2503.14476), Dr. GRPO (2503.20783), GSPO (2507.18071), dual clip (1912.09729); the numbers
are those of verl 0.9.1 and, where no clamp is active, TRL 1.16.0 (tests/golden/make_grpo.py).
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

LOG_RATIO_LIMIT = 20.0
SEQUENCE_LOG_RATIO_LIMIT = 10.0
K3_LIMIT = 10.0

Tokens = Float[Array, "B T"]
Mask = Bool[Array, "B T"]
Aggregation = Literal["token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum", "constant"]
Estimator = Literal["k1", "k2", "k3"]


def aggregation_weights(mask: Mask, how: Aggregation, length: int) -> Tokens:
    """What each token counts in the batch's loss, which is the sum of weight x token loss.

    Made from the masks of the whole batch, the weights are exact however it is cut into micro-batches: their
    losses and gradients just add up.

    Args:
      how: "token_mean" is the mean over all tokens of the batch (verl, DAPO). The others are means over the
        sequences that have any token: "sequence_mean_token_mean" of a sequence's mean (GRPO, GSPO),
        "sequence_mean_token_sum" of its sum, "constant" of its sum divided by `length` (Dr. GRPO).
      length: the constant of "constant", usually the longest response allowed.
    """
    m = mask.astype(jnp.result_type(float))
    tokens = m.sum(axis=1, keepdims=True)
    sequences = jnp.maximum((tokens > 0).sum(), 1)
    if how == "token_mean":
        return m / jnp.maximum(m.sum(), 1)
    if how == "sequence_mean_token_mean":
        return m / jnp.maximum(tokens, 1) / sequences
    if how == "sequence_mean_token_sum":
        return m / sequences
    if how == "constant":
        return m / (sequences * length)
    raise ValueError(f"aggregation: {how!r} is unknown")


def weighted_sum(values: Tokens, weights: Tokens) -> Float[Array, ""]:
    """Sum of weight x value; a value of weight 0 does not count, even NaN."""
    return jnp.sum(jnp.where(weights != 0, values, 0) * weights)


def masked(values: Tokens, mask: Mask) -> Tokens:
    """0 off the mask."""
    return jnp.where(mask, values, 0)


def token_ratio(logprobs: Tokens, old_logprobs: Tokens, mask: Mask) -> Tokens:
    """Of the policy's probability to that at the time of sampling; log-ratio clamped to +-20; 1 off the mask."""
    log_ratio = masked(logprobs, mask) - masked(old_logprobs, mask)
    return jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def sequence_ratio(logprobs: Tokens, old_logprobs: Tokens, mask: Mask) -> Tokens:
    """The geometric mean of a sequence's token ratios, on each of its tokens (GSPO, equations 7 and 14).

    The value is the sequence's; the gradient goes through each token's own log-probability (GSPO-token), so that
    advantages may differ within a sequence.
    """
    logprobs = masked(logprobs, mask)
    log_ratio = logprobs - masked(old_logprobs, mask)
    mean = log_ratio.sum(axis=1, keepdims=True) / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    own = logprobs - jax.lax.stop_gradient(logprobs)
    return jnp.exp(jnp.minimum(own + jax.lax.stop_gradient(mean), SEQUENCE_LOG_RATIO_LIMIT))


def clipped_loss(
    ratio: Tokens, advantages: Tokens, mask: Mask, low: float, high: float, dual: float | None
) -> Tokens:
    """max(-A rho, -A clip(rho, 1 - low, 1 + high)), and at most -dual A where A < 0.

    Args:
      ratio: from `token_ratio` or `sequence_ratio`.
      low, high: 0.2 and 0.2 is PPO; a larger `high` is DAPO's clip-higher.
      dual: at least 1: bounds the push away from a token that has grown likely since; None for no bound.
    """
    advantages = masked(advantages, mask)
    loss = jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, 1 - low, 1 + high))
    if dual is not None:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -advantages * dual), loss)
    return masked(loss, mask)


def clip_fractions(
    ratio: Tokens, advantages: Tokens, mask: Mask, low: float, high: float, dual: float | None
) -> tuple[Tokens, Tokens]:
    """Where clipping decided the loss, and where the dual clip did: 1 or 0 a token."""
    advantages = masked(advantages, mask)
    plain, clipped = -advantages * ratio, -advantages * jnp.clip(ratio, 1 - low, 1 + high)
    bound = jnp.inf if dual is None else -advantages * dual
    lower = (advantages < 0) & (jnp.maximum(plain, clipped) > bound)
    return (mask & (clipped > plain)).astype(ratio.dtype), (mask & lower).astype(ratio.dtype)


def kl_estimate(logprobs: Tokens, reference: Tokens, mask: Mask, estimator: Estimator) -> Tokens:
    """Of KL(policy || reference) from the sampled token (Schulman, http://joschu.net/blog/kl-approx.html).

    With d = reference - policy: k1 = -d; k2 = d^2 / 2; k3 = exp(d) - d - 1, d clamped to +-20 and the result to
    +-10, as in verl.
    """
    d = masked(reference, mask) - masked(logprobs, mask)
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return 0.5 * jnp.square(d)
    if estimator == "k3":
        d = jnp.clip(d, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        return jnp.clip(jnp.exp(d) - d - 1, -K3_LIMIT, K3_LIMIT)
    raise ValueError(f"estimator: {estimator!r} is none of k1, k2, k3")


def importance_weights(trainer: Tokens, sampler: Tokens, mask: Mask, cap: float) -> Tokens:
    """min(pi_trainer / pi_sampler, cap) of the same weights: makes good for a sampler that computes otherwise than
    the trainer (truncated importance sampling, https://fengyao.notion.site/off-policy-rl). No gradient."""
    return jax.lax.stop_gradient(jnp.minimum(token_ratio(trainer, sampler, mask), cap))


def drop_overlong(mask: Mask, ended: Bool[Array, " B"]) -> Mask:
    """Without the responses that were cut before their end (DAPO, section 3.4: overlong filtering)."""
    return mask & ended[:, None]


def overlong_penalty(lengths: Int[Array, " B"], longest: int, buffer: int) -> Float[Array, " B"]:
    """0 up to `longest` - `buffer` tokens, then falling to -1 at `longest` (DAPO, equation 13).

    Raises:
      ValueError: the buffer is not between 1 and `longest`.
    """
    if not 1 <= buffer <= longest:
        raise ValueError(f"buffer: {buffer} must be between 1 and the longest response, {longest}")
    return jnp.clip((longest - buffer - lengths) / buffer, -1.0, 0.0)
