"""The language model: grouped-query attention with M-RoPE, gated MLP, pre-norm."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from chestx_jax.models.partitioning import BATCH_AXES, constrain_batch
from chestx_jax.models.qwen2_vl.attention import Seen, attend_rows, rows_seen
from chestx_jax.models.qwen2_vl.cache import KVCache, Slots
from chestx_jax.models.qwen2_vl.config import Qwen2VLConfig
from chestx_jax.models.qwen2_vl.layers import (
    Block,
    Init,
    Linear,
    RMSNorm,
    named,
    scan_layers,
    split_heads,
)
from chestx_jax.models.qwen2_vl.rope import Rotary, rotate, text_rotary

KeyValue = tuple[Float[Array, "B K H T"], Float[Array, "B K T H"]]


class Embedding(nnx.Module):
    """`torch.nn.Embedding`."""

    def __init__(self, rows: int, width: int, init: Init):
        self.embedding = init.normal(rows, width)
        self.dtype = init.dtype

    def __call__(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return jnp.take(self.embedding[...], tokens, axis=0).astype(self.dtype)


class Attention(nnx.Module):
    """`Qwen2VLAttention`."""

    def __init__(self, config: Qwen2VLConfig, init: Init):
        width, kv_width = config.hidden_size, config.num_kv_heads * config.head_dim
        self.heads, self.kv_heads = config.num_heads, config.num_kv_heads
        self.q_proj = Linear(width, width, init, units=self.heads)
        self.k_proj = Linear(width, kv_width, init, units=self.kv_heads)
        self.v_proj = Linear(width, kv_width, init, units=self.kv_heads)
        self.o_proj = Linear(width, width, init, bias=False, cut=1, units=self.heads)

    def __call__(
        self, x: Float[Array, "B T D"], rotary: Rotary, seen: Seen | Slots, past: tuple[Block, ...]
    ) -> tuple[Float[Array, "B T D"], KeyValue]:
        q = named(rotate(split_heads(self.q_proj(x), self.heads), rotary), "qkv")
        k = named(rotate(split_heads(self.k_proj(x), self.kv_heads), rotary).swapaxes(2, 3), "qkv")
        v = named(split_heads(self.v_proj(x), self.kv_heads), "qkv")
        if isinstance(seen, Slots):
            k, v, seen = seen.write(k, v)
        out = attend_rows(q, k, v, seen, "attention", past)
        return named(self.o_proj(out), "o_proj"), (k, v)


class MLP(nnx.Module):
    """`Qwen2MLP`."""

    def __init__(self, config: Qwen2VLConfig, init: Init):
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, init, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, init, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, init, bias=False, cut=1)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        gate, up = named(self.gate_proj(x), "gate_proj"), named(self.up_proj(x), "up_proj")
        return self.down_proj(jax.nn.silu(gate) * up)


class DecoderLayer(nnx.Module):
    """`Qwen2VLDecoderLayer`.

    A call gives the keys and values of its tokens besides: with `Slots`, of all that these hold.
    """

    def __init__(self, config: Qwen2VLConfig, init: Init):
        self.input_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, init)
        self.attn = Attention(config, init)
        self.post_attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, init)
        self.mlp = MLP(config, init)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        rotary: Rotary,
        seen: Seen | Slots,
        past: tuple[Block, ...] = (),
    ) -> tuple[Float[Array, "B T D"], KeyValue]:
        out, kv = self.attn(self.input_norm(x), rotary, seen, past)
        x = x + out
        return constrain_batch(x + self.mlp(self.post_attention_norm(x))), kv


class LanguageModel(nnx.Module):
    """`Qwen2VLTextModel`."""

    def __init__(self, config: Qwen2VLConfig, init: Init, remat: str, attention: str):
        self.embed = Embedding(config.vocab_size, config.hidden_size, init)
        self.layers = DecoderLayer(config, init.stacked(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, init)
        self.config, self.remat, self.attention = config, remat, attention

    def rows_seen(self, segments: Int[Array, "B T"]) -> Seen:
        """What each token of whole rows sees: what came before it in its own segment (`attention.rows_seen`)."""
        return rows_seen(self.attention, segments, causal=True, axes=BATCH_AXES)

    def hidden(
        self, x: Float[Array, "B T D"], positions: Int[Array, "B 3 T"], segments: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Embeddings to final-norm states, for training: keys and values are not kept."""
        rotary, seen = text_rotary(self.config, positions), self.rows_seen(segments)

        def step(x: Array, layer: DecoderLayer) -> tuple[Array, None]:
            return layer(x, rotary, seen)[0], None

        x, _ = scan_layers(step, constrain_batch(x), self.layers, self.remat)
        return self.norm(x)

    def prefill(
        self, x: Float[Array, "B T D"], positions: Int[Array, "B 3 T"], segments: Int[Array, "B T"]
    ) -> tuple[Float[Array, "B T D"], KeyValue]:
        """As `hidden`, and the keys [L, B, K, H, T] and values [L, B, K, T, H] of every layer."""
        rotary, seen = text_rotary(self.config, positions), self.rows_seen(segments)

        def step(x: Array, layer: DecoderLayer) -> tuple[Array, KeyValue]:
            return layer(x, rotary, seen)

        x, kv = scan_layers(step, constrain_batch(x), self.layers, "none")
        return self.norm(x), kv

    def token_rotary(self, position: Int[Array, " B"]) -> Rotary:
        """Of one token of text a row, whose three positions are the same."""
        return text_rotary(self.config, jnp.broadcast_to(position[:, None, None], (len(position), 3, 1)))

    def decode(
        self, x: Float[Array, "B 1 D"], cache: KVCache, layers: DecoderLayer
    ) -> tuple[Float[Array, "B 1 D"], KVCache]:
        """One more token of every row, after those in the cache, and the cache that holds it too.

        Args:
          layers: ours, or a copy of them for one CPU (one_cpu.py).
        """
        rotary = self.token_rotary(cache.position)
        itself = jnp.ones((len(x), 1, 1), bool)

        def step(x: Array, layer: tuple[DecoderLayer, Array, Array, Array, Array]) -> tuple[Array, KeyValue]:
            module, prompt_k, prompt_v, k, v = layer
            past = (prompt_k, prompt_v, cache.prompt_seen), (k, v, cache.seen)
            return module(x, rotary, itself, past)

        # the cache is only read inside the scan and written once after it: XLA updates it in place
        stacks = (layers, cache.prompt_k, cache.prompt_v, cache.k, cache.v)
        x, (k, v) = scan_layers(step, x, stacks, "none")
        return self.norm(x), cache.append(k, v)
