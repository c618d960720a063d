"""Decoding on one CPU, whose results are those of `Qwen2VL.decode`.

XLA for CPUs packs the right side of a product anew every time, so kernels go to the left, turned once, and what is
packed are the few rows (`layers.turned_matmul`). It also multiplies from whole arrays: what a loop takes out of a stack
it first copies, kernels and caches anew for every token. So the loop over large layers is unrolled, and each has its
kernels and its cache to itself. Small layers stay in a loop: with several threads XLA spends more on handing out an
unrolled program's small operations than the copies took. The price of all this is a second copy of the layers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.models.qwen2_vl.cache import KVCache, Slots
from chestx_jax.models.qwen2_vl.language import DecoderLayer, LanguageModel
from chestx_jax.models.qwen2_vl.layers import linears, turned_matmul
from chestx_jax.models.qwen2_vl.model import Qwen2VL

UNROLLED_BYTES = 8 * 2**20  # of one layer's parameters, from which on the loop is unrolled


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


def large(text: LanguageModel) -> bool:
    """Whether its loop over layers is worth unrolling."""
    return sum(x.nbytes for x in jax.tree.leaves(text.layers)) >= text.config.num_layers * UNROLLED_BYTES


def turned(layers: DecoderLayer) -> DecoderLayer:
    """A copy of one layer or a stack of them, the kernels turned."""
    copy = jax.tree.map(lambda x: x, layers)
    for _, linear in linears(copy):
        linear.turn()
    return copy


def unroll(text: LanguageModel) -> tuple[DecoderLayer, ...]:
    """Every layer for itself, `turned`."""
    return tuple(
        turned(jax.tree.map(lambda x, i=i: x[i], text.layers)) for i in range(text.config.num_layers)
    )


def unroll_cache(cache: KVCache) -> UnrolledCache:
    """The same cache, layer by layer."""
    stacks = zip(cache.prompt_k, cache.prompt_v, cache.k, cache.v, strict=True)
    layers = tuple(LayerCache(*layer) for layer in stacks)
    return UnrolledCache(layers, cache.prompt_seen, cache.position, cache.length)


def decode(
    model: Qwen2VL, layers: DecoderLayer, tokens: Int[Array, " B"], cache: KVCache
) -> tuple[Float[Array, "B V"], KVCache]:
    """`Qwen2VL.decode` with the `turned` stack in the place of the model's."""
    x, cache = model.text.decode(model.text.embed(tokens[:, None]), cache, layers)
    return _logits(model, x), cache


def decode_unrolled(
    model: Qwen2VL, layers: tuple[DecoderLayer, ...], tokens: Int[Array, " B"], cache: UnrolledCache
) -> tuple[Float[Array, "B V"], UnrolledCache]:
    """`Qwen2VL.decode` with the layers of `unroll` in the place of the model's."""
    text = model.text
    x, rotary, written = text.embed(tokens[:, None]), text.token_rotary(cache.position), []
    for layer, own in zip(layers, cache.layers, strict=True):
        past = (own.prompt_k, own.prompt_v, cache.prompt_seen)
        x, (k, v) = layer(x, rotary, Slots(own.k, own.v, cache.length), (past,))
        written.append(own._replace(k=k, v=v))
    after = UnrolledCache(tuple(written), cache.prompt_seen, cache.position + 1, cache.length + 1)
    return _logits(model, text.norm(x)), after


def _logits(model: Qwen2VL, x: Float[Array, "B 1 D"]) -> Float[Array, "B V"]:
    if model.lm_head is not None:
        return model.logits(x[:, 0])
    table = model.text.embed.embedding[...].astype(x.dtype)  # lies as a turned kernel does
    return turned_matmul(x[:, 0], table, jnp.float32)
