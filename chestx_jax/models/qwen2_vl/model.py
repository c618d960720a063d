"""Qwen2-VL: patches and tokens in, final states or logits out."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from chestx_jax.models.partitioning import constrain_batch
from chestx_jax.models.qwen2_vl import cache as kv
from chestx_jax.models.qwen2_vl.attention import check_attention
from chestx_jax.models.qwen2_vl.config import Qwen2VLConfig
from chestx_jax.models.qwen2_vl.language import LanguageModel
from chestx_jax.models.qwen2_vl.layers import REMAT_POLICIES, Init, Linear
from chestx_jax.models.qwen2_vl.vision import VisionTower

Batch = Mapping[str, Array]


class Qwen2VL(nnx.Module):
    """`Qwen2VLForConditionalGeneration`; all that depends on data (positions, grids) comes from the host.

    A batch holds tokens[B,T], positions[B,3,T], segments[B,T] (0 is padding), patches[B,P,1176],
    patch_hw[B,P,2], patch_segments[B,P] and image_index[B,T] (which merged feature, -1 is text); P may be 0.

    Args:
      config: sizes and token ids.
      rngs: the stream `params` draws the initial weights (normal, `initializer_range`, as in transformers).
      dtype: of the computation; softmax, norms, rotary angles and logits are float32 always.
      param_dtype: of the weights.
      remat: what the backward pass keeps of each layer: "none" recomputes nothing, "full" everything,
        "minimal" keeps queries, keys, values, attention and its projection, "mlp" these of the language model only,
        and the up projection of its MLP, "most" what "minimal" keeps and the gate and up projections.
      attention: "xla", or a kernel for passes over whole rows, the vision tower's too: "splash" on TPUs, "cudnn" on
        NVIDIA's GPUs (attention.py says what each takes). Decoding, and a group's completions after their prompt
        (continuation.py), are XLA's with any of them.

    Raises:
      AttentionError: there is no such attention, or it does not compute in `dtype`. On devices that lack its kernel
        JAX itself fails when a program is compiled; `attention.check_platform` tells before.
    """

    def __init__(
        self,
        config: Qwen2VLConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        remat: str = "none",
        attention: str = "xla",
    ):
        if remat not in REMAT_POLICIES:
            raise ValueError(f"remat: {remat!r} is none of {REMAT_POLICIES}")
        check_attention(attention, dtype, (config.head_dim, config.vision.head_dim))
        init = Init(rngs, config.initializer_range, jnp.dtype(dtype), jnp.dtype(param_dtype))
        self.config, self.attention = config, attention
        self.vision = VisionTower(config.vision, config.hidden_size, init, remat, attention)
        self.text = LanguageModel(config, init, remat, attention)
        tied = config.tie_word_embeddings
        self.lm_head = None if tied else Linear(config.hidden_size, config.vocab_size, init, bias=False)
        self.step_head: Linear | None = nnx.data(None)  # models/process_reward.py

    def encode_images(
        self,
        patches: Float[Array, "B P 1176"],
        patch_hw: Int[Array, "B P 2"],
        patch_segments: Int[Array, "B P"],
    ) -> Float[Array, "B P/4 D"]:
        """Features of every 2 x 2 block of patches, in the order of the patches."""
        return self.vision(patches, patch_hw, patch_segments)

    def embed(
        self,
        tokens: Int[Array, "B T"],
        image_features: Float[Array, "B F D"] | None,
        image_index: Int[Array, "B T"],
    ) -> Float[Array, "B T D"]:
        """Token embeddings, with image feature `image_index` in the place of each image token.

        Indices past the last feature would be clamped in silence: the host checks the counts.
        """
        x = self.text.embed(tokens)
        if image_features is None:
            return x
        features = jnp.take_along_axis(image_features, jnp.maximum(image_index, 0)[..., None], axis=1)
        return jnp.where(image_index[..., None] >= 0, features, x)

    def embed_batch(self, batch: Batch) -> Float[Array, "B T D"]:
        """Images and tokens of a batch as the language model's input."""
        features = None
        if batch["patches"].shape[1]:
            features = self.encode_images(batch["patches"], batch["patch_hw"], batch["patch_segments"])
        return constrain_batch(self.embed(batch["tokens"], features, batch["image_index"]))

    def hidden(self, batch: Batch) -> Float[Array, "B T D"]:
        """Final-norm states in the compute dtype."""
        return self.text.hidden(self.embed_batch(batch), batch["positions"], batch["segments"])

    def logits(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Float32 scores of the next token."""
        if self.lm_head is not None:
            return self.lm_head(hidden, out_dtype=jnp.float32)
        table = self.text.embed.embedding[...].astype(hidden.dtype)
        return jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type=jnp.float32)

    def head_kernel(self) -> Float[Array, "D V"]:
        """What `logits` multiplies with, in the parameters' type, adapter included; `fsdp` cuts its first dimension."""
        if self.lm_head is None:
            return self.text.embed.embedding[...].T
        return self.lm_head.merged_kernel()

    def __call__(self, batch: Batch) -> Float[Array, "B T V"]:
        """All logits at once: for tests and small models."""
        return self.logits(self.hidden(batch))

    def prefill(self, batch: Batch, slots: int, group: int = 1) -> tuple[Float[Array, "P V"], kv.KVCache]:
        """Reads prompts (one sample a row, padded left or right).

        Returns the logits of each prompt's next token, and a cache with room for `slots` more tokens in each of `group`
        continuations of each prompt.
        """
        segments, positions = batch["segments"], batch["positions"]
        x, (k, v) = self.text.prefill(self.embed_batch(batch), positions, segments)
        last = jnp.max(jnp.where(segments > 0, jnp.arange(segments.shape[1]), 0), axis=1)
        x = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        return self.logits(x), kv.from_prompt(k, v, segments, positions, group, slots)

    def decode(self, tokens: Int[Array, " B"], cache: kv.KVCache) -> tuple[Float[Array, "B V"], kv.KVCache]:
        """Reads one more token a row; logits of the one after it, and the cache that holds it."""
        x, cache = self.text.decode(self.text.embed(tokens[:, None]), cache, self.text.layers)
        return self.logits(x[:, 0]), cache
