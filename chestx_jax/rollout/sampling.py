"""From logits to the next token."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

# Stands for minus infinity: its exponential is 0, and a row full of it gives no NaN.
EXCLUDED = -1e30


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Hashable: part of what a generation program is compiled for.

    temperature: 0 is greedy. forbidden_ids: never drawn, greedy or not (image tokens, for one).
    """

    temperature: float = 0.0
    forbidden_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature: {self.temperature} must not be negative")


def sampling_logprobs(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """Log-probabilities of the distribution that tokens are drawn from; `EXCLUDED` where it is zero.

    Greedy decoding reports those at temperature 1 (its own distribution has all its mass on one token).
    """
    logits = logits.astype(jnp.float32)
    if sampling.forbidden_ids:
        logits = logits.at[:, jnp.asarray(sampling.forbidden_ids)].set(EXCLUDED)
    if sampling.temperature > 0:
        logits = logits / sampling.temperature
    return jnp.maximum(jax.nn.log_softmax(logits, axis=-1), EXCLUDED)


def sample(
    logits: Float[Array, "B V"], keys: Key[Array, " B"], sampling: Sampling
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """One token a row, each from its own key, and its log-probability under the sampling distribution."""
    logprobs = sampling_logprobs(logits, sampling)
    if sampling.temperature > 0:
        tokens = jax.vmap(jax.random.categorical)(keys, logprobs)
    else:
        tokens = jnp.argmax(logprobs, axis=-1)
    return tokens, jnp.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]
