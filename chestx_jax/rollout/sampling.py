"""From logits to the next token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

# Stands for minus infinity: its exponential is 0, and a row full of it gives no NaN.
EXCLUDED = -1e30


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Hashable: part of what a generation program is compiled for.

    Attributes:
      temperature: 0 is greedy, and takes no filter.
      forbidden_ids: never drawn, greedy or not (image tokens, for one).
      top_k: only the k likeliest; 0 for all. Equals of the k-th stay.
      top_p: only the likeliest that together reach this probability; 1 for all. Equals of the last stay.
      min_p: only those at least this fraction as likely as the likeliest; 0 for all.

    Filters apply in this order, after the temperature (as in transformers).
    """

    temperature: float = 0.0
    forbidden_ids: tuple[int, ...] = ()
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature: {self.temperature} must not be negative")
        if self.top_k < 0:
            raise ValueError(f"top_k: {self.top_k} must not be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} must be above 0 and at most 1")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min_p: {self.min_p} must be at least 0 and below 1")
        if self.filters and self.temperature == 0:
            raise ValueError("top_k, top_p, min_p: greedy decoding (temperature 0) takes no filter")

    @property
    def filters(self) -> bool:
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def sampling_logprobs(logits: Float[Array, "*rows V"], sampling: Sampling) -> Float[Array, "*rows V"]:
    """Log-probabilities of the distribution that tokens are drawn from; `EXCLUDED` where it is zero.

    Greedy decoding reports those at temperature 1 (its own distribution has all its mass on one token).
    """
    scaled = scale(logits, sampling)
    passes = permitted(logits.shape[-1], sampling) & (scaled >= threshold(scaled, sampling))
    return jnp.maximum(jax.nn.log_softmax(jnp.where(passes, scaled, EXCLUDED), axis=-1), EXCLUDED)


def scale(logits: Float[Array, "*rows V"], sampling: Sampling) -> Float[Array, "*rows V"]:
    """Logits over the temperature, float32."""
    logits = logits.astype(jnp.float32)
    return logits / sampling.temperature if sampling.temperature > 0 else logits


def permitted(vocabulary: int, sampling: Sampling) -> Bool[np.ndarray, " V"]:
    """All tokens but the forbidden."""
    return ~np.isin(np.arange(vocabulary), sampling.forbidden_ids)


def threshold(scaled: Float[Array, "*rows V"], sampling: Sampling) -> Float[Array, "*rows 1"]:
    """The least scaled logit that passes top-k, top-p and min-p: each keeps the likeliest, up to some point."""
    least = jnp.full((*scaled.shape[:-1], 1), -jnp.inf)
    if not sampling.filters:
        return least
    scaled = jnp.where(permitted(scaled.shape[-1], sampling), scaled, EXCLUDED)
    if 0 < sampling.top_k < scaled.shape[-1]:
        least = _reaching(scaled, jnp.ones_like(scaled), sampling.top_k)
    if sampling.top_p < 1:
        inside = jnp.where(scaled >= least, scaled, EXCLUDED)
        least = _reaching(inside, jax.nn.softmax(inside, axis=-1), sampling.top_p)
    if sampling.min_p > 0:
        least = jnp.maximum(least, scaled.max(axis=-1, keepdims=True) + jnp.log(sampling.min_p))
    return least


def sample(
    logits: Float[Array, "B V"], keys: Key[Array, " B"], sampling: Sampling
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """One token a row, each from its own key, and its log-probability under the sampling distribution."""
    logprobs = sampling_logprobs(logits, sampling)
    scores = logprobs
    if sampling.temperature > 0:  # the Gumbel trick: a last bit of the logits hardly ever changes the token
        scores += jax.vmap(lambda key, row: jax.random.gumbel(key, row.shape))(keys, logprobs)
    tokens = _argmax(scores)
    return tokens, jnp.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]


def _argmax(x: Float[Array, "B V"]) -> Int[Array, " B"]:
    """`jnp.argmax` as two reductions that vectorise on a CPU, where the one of both takes five times as long."""
    places = jnp.where(x == x.max(axis=-1, keepdims=True), jnp.arange(x.shape[-1]), x.shape[-1] - 1)
    return places.min(axis=-1)


def _reaching(
    logits: Float[Array, "*rows V"], weights: Float[Array, "*rows V"], need: float
) -> Float[Array, "*rows 1"]:
    """The largest logit such that the tokens at least as likely reach `need` with their weights.

    No sort of the vocabulary, which takes ten times as long on a CPU: float32 numbers are brought to integers of
    the same order, and the place is found by bisection, exactly after 32 halvings.
    """

    def flip(bits: Array) -> Array:  # its own inverse
        return jnp.where(bits < 0, bits ^ jnp.iinfo(jnp.int32).max, bits)

    order = flip(jax.lax.bitcast_convert_type(logits, jnp.int32))

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # their sum may not fit
        enough = jnp.where(order >= middle, weights, 0).sum(axis=-1, keepdims=True) >= need
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    least, most = order.min(axis=-1, keepdims=True), order.max(axis=-1, keepdims=True)
    found, _ = jax.lax.fori_loop(0, 32, halve, (least, most + 1))
    return jax.lax.bitcast_convert_type(flip(found), jnp.float32)
