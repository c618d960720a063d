"""Decoding on one CPU: the loop over layers is unrolled, and each layer has its kernels and its cache to itself.

XLA for CPUs multiplies from whole arrays: what a loop takes out of a stack it first copies, kernels and caches anew for
every token. It also packs the right side of a product anew every time, so kernels go to the left, turned once, and what
is packed are the few rows (`layers.turned_matmul`). The price is a second copy of the layers in memory, and a program
that grows with their number. Everything else decodes with `Qwen2VL.decode`, whose results these are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.models.qwen2_vl.cache import KVCache, Slots
from chestx_jax.models.qwen2_vl.language import DecoderLayer, LanguageModel
from chestx_jax.models.qwen2_vl.layers import linears, turned_matmul
from chestx_jax.models.qwen2_vl.model import Qwen2VL
from chestx_jax.models.qwen2_vl.rope import text_rotary


class LayerCache(NamedTuple):
    """One layer's part of a `KVCache`."""

    prompt_k: Float[Array, "P K H T"]
    prompt_v: Float[Array, "P K T H"]
    k: Float[Array, "B K H S"]
    v: Float[Array, "B K S H"]


class UnrolledCache(NamedTuple):
    """A `KVCache` with its layers apart."""

    layers: tuple[LayerCache, ...]
    prompt_seen: Bool[Array, "P 1 T"]
    position: Int[Array, " B"]
    length: Int[Array, ""]


def unroll(text: LanguageModel) -> tuple[DecoderLayer, ...]:
    """A copy of every layer, its kernels turned."""
    layers = tuple(jax.tree.map(lambda x, i=i: x[i], text.layers) for i in range(text.config.num_layers))
    for layer in layers:
        for _, linear in linears(layer):
            linear.turn()
    return layers


def unroll_cache(cache: KVCache) -> UnrolledCache:
    """The same cache, layer by layer."""
    stacks = zip(cache.prompt_k, cache.prompt_v, cache.k, cache.v, strict=True)
    layers = tuple(LayerCache(*layer) for layer in stacks)
    return UnrolledCache(layers, cache.prompt_seen, cache.position, cache.length)


def decode(
    model: Qwen2VL, layers: tuple[DecoderLayer, ...], tokens: Int[Array, " B"], cache: UnrolledCache
) -> tuple[Float[Array, "B V"], UnrolledCache]:
    """`Qwen2VL.decode` with `layers` in the place of the model's."""
    text = model.text
    rotary = text_rotary(text.config, jnp.broadcast_to(cache.position[:, None, None], (len(tokens), 3, 1)))
    x, written = text.embed(tokens[:, None]), []
    for layer, own in zip(layers, cache.layers, strict=True):
        past = (own.prompt_k, own.prompt_v, cache.prompt_seen)
        x, (k, v) = layer(x, rotary, Slots(own.k, own.v, cache.length), (past,))
        written.append(own._replace(k=k, v=v))
    x = text.norm(x)[:, 0]
    after = UnrolledCache(tuple(written), cache.prompt_seen, cache.position + 1, cache.length + 1)
    if model.lm_head is None:
        return turned_matmul(x, text.embed.embedding[...].astype(x.dtype), jnp.float32), after
    return model.logits(x), after
