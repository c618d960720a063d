"""Generation: sampling, prefill and decode, and the engine that turns prompts into completions."""

from chestx_jax.rollout.decode import Generated, generate
from chestx_jax.rollout.engine import Completion, Engine, prompt_buckets
from chestx_jax.rollout.layout import writing_mesh
from chestx_jax.rollout.sampling import Sampling
from chestx_jax.rollout.spans import TokenSpans

__all__ = [
    "Completion",
    "Engine",
    "Generated",
    "Sampling",
    "TokenSpans",
    "generate",
    "prompt_buckets",
    "writing_mesh",
]
