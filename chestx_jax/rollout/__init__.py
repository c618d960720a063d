"""Generation: sampling, prefill and decode."""

from chestx_jax.rollout.decode import Generated, generate
from chestx_jax.rollout.sampling import Sampling

__all__ = ["Generated", "Sampling", "generate"]
