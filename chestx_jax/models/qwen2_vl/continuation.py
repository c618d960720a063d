"""Groups of continuations of the same prompts in one differentiable pass that reads each prompt once.

For reinforcement learning: with G continuations a prompt, images and prompt tokens are read once, not G times.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.models.partitioning import constrain_batch
from chestx_jax.models.qwen2_vl.attention import causal_parts
from chestx_jax.models.qwen2_vl.language import DecoderLayer
from chestx_jax.models.qwen2_vl.layers import scan_layers
from chestx_jax.models.qwen2_vl.model import Batch, Qwen2VL
from chestx_jax.models.qwen2_vl.rope import text_rotary


def continuation_hidden(
    model: Qwen2VL, prompts: Batch, tokens: Int[Array, "R N"], mask: Bool[Array, "R N"]
) -> Float[Array, "R N D"]:
    """Final-norm states that predict `tokens`: state t is made of the prompt and tokens 0 to t - 1.

    Equals `Qwen2VL.hidden` over prompt and continuation in one row, and the states that prefill and decode go
    through (`rollout.generate`).

    Args:
      prompts: P rows, one sample a row, padded left or right (see `Qwen2VL`).
      tokens: R = P * G rows; row p * G + g continues prompt p.
      mask: which tokens are there, without holes; what stands off it does not matter, nor do the states there.

    Raises:
      ValueError: R is not a multiple of P.
    """
    rows, new = tokens.shape
    segments, positions = prompts["segments"], prompts["positions"]
    group, left = divmod(rows, len(segments))
    if left or not group:
        raise ValueError(f"tokens: {rows} rows are not groups of {len(segments)} prompts")

    def grouped(x: Array) -> Array:
        return constrain_batch(jnp.repeat(x, group, axis=0))

    text, real = model.text, segments > 0
    start = jnp.max(jnp.where(real[:, None], positions, -1), axis=(1, 2)) + 1
    own_positions = grouped(start)[:, None, None] + jnp.broadcast_to(jnp.arange(new), (rows, 3, new))
    own_rotary, prompt_rotary = text_rotary(text.config, own_positions), text_rotary(text.config, positions)
    prompt_seen = text.rows_seen(segments)
    # Tokens attend to their prompt and to each other under one softmax, which no kernel here does: XLA's attention.
    # Off the mask a token sees itself, so that no row of scores is empty.
    own_seen = causal_parts(mask.astype(jnp.int32))

    def step(states: tuple[Array, Array], layer: DecoderLayer) -> tuple[tuple[Array, Array], None]:
        prompt, own = states
        prompt, (k, v) = layer(prompt, prompt_rotary, prompt_seen)
        own, _ = layer(own, own_rotary, own_seen, ((k, v, real[:, None]),))
        return (prompt, own), None

    # The state after the last token is dropped; `new` rows are made, since compilers take a round number better than
    # one less (XLA for TPU: 167 CPU seconds instead of 271).
    start_states = model.embed_batch(prompts), constrain_batch(text.embed(jnp.where(mask, tokens, 0)))
    (prompt, own), _ = scan_layers(step, start_states, text.layers, text.remat)
    last = jnp.max(jnp.where(real, jnp.arange(segments.shape[1]), 0), axis=1)
    prompt = jnp.take_along_axis(prompt, last[:, None, None], axis=1)
    return text.norm(jnp.concatenate([grouped(prompt), own[:, :-1]], axis=1))
