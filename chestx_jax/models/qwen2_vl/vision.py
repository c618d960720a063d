"""The vision tower: patches of all images of a sample in one row, each image seeing only itself."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from chestx_jax.models.partitioning import constrain_images, image_axes
from chestx_jax.models.qwen2_vl.attention import Seen, attend_rows, rows_seen
from chestx_jax.models.qwen2_vl.config import VisionConfig
from chestx_jax.models.qwen2_vl.layers import Init, LayerNorm, Linear, named, scan_layers, split_heads
from chestx_jax.models.qwen2_vl.rope import Rotary, rotate, vision_rotary


class VisionAttention(nnx.Module):
    """Full attention within an image: `VisionAttention` of transformers."""

    def __init__(self, config: VisionConfig, init: Init):
        self.qkv = Linear(config.embed_dim, 3 * config.embed_dim, init, units=1)
        self.proj = Linear(config.embed_dim, config.embed_dim, init, units=1)
        self.heads = config.num_heads

    def __call__(self, x: Float[Array, "B P E"], rotary: Rotary, seen: Seen) -> Float[Array, "B P E"]:
        q, k, v = (split_heads(part, self.heads) for part in jnp.split(self.qkv(x), 3, axis=-1))
        q, k = rotate(q, rotary), rotate(k, rotary).swapaxes(2, 3)
        q, k, v = (named(part, "vision_qkv") for part in (q, k, v))
        out = attend_rows(q, k, v, seen, "vision_attention")
        return named(self.proj(out), "vision_o_proj")


class VisionMLP(nnx.Module):
    """Two layers with quick GELU: `VisionMlp`."""

    def __init__(self, config: VisionConfig, init: Init):
        self.fc1 = Linear(config.embed_dim, config.mlp_ratio * config.embed_dim, init, units=1)
        self.fc2 = Linear(config.mlp_ratio * config.embed_dim, config.embed_dim, init, cut=1, units=1)

    def __call__(self, x: Float[Array, "B P E"]) -> Float[Array, "B P E"]:
        x = self.fc1(x)
        return self.fc2(x * jax.nn.sigmoid(1.702 * x))


class VisionBlock(nnx.Module):
    """`Qwen2VLVisionBlock`."""

    def __init__(self, config: VisionConfig, init: Init):
        self.norm1 = LayerNorm(config.embed_dim, init)
        self.attn = VisionAttention(config, init)
        self.norm2 = LayerNorm(config.embed_dim, init)
        self.mlp = VisionMLP(config, init)

    def __call__(self, x: Float[Array, "B P E"], rotary: Rotary, seen: Seen) -> Float[Array, "B P E"]:
        x = x + self.attn(self.norm1(x), rotary, seen)
        return x + self.mlp(self.norm2(x))


class PatchMerger(nnx.Module):
    """Every 2 x 2 block of patches, neighbours in the row, becomes one token: `PatchMerger`."""

    def __init__(self, config: VisionConfig, out_width: int, init: Init):
        width = config.merge_unit * config.embed_dim
        self.norm = LayerNorm(config.embed_dim, init)
        self.fc1 = Linear(width, width, init, units=1)
        self.fc2 = Linear(width, out_width, init, cut=1, units=1)

    def __call__(self, x: Float[Array, "B P E"]) -> Float[Array, "B P/4 D"]:
        x = self.norm(x).reshape(x.shape[0], -1, self.fc1.kernel.shape[0])
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class VisionTower(nnx.Module):
    """`Qwen2VisionTransformerPretrainedModel`, batched: a row of patches a sample, images kept apart."""

    def __init__(self, config: VisionConfig, out_width: int, init: Init, remat: str, attention: str):
        self.patch_embed = Linear(config.patch_dim, config.embed_dim, init, bias=False, cut=1, units=1)
        self.blocks = VisionBlock(config, init.stacked(config.depth))
        self.merger = PatchMerger(config, out_width, init)
        self.config, self.remat, self.attention, self.dtype = config, remat, attention, init.dtype

    def __call__(
        self,
        patches: Float[Array, "B P 1176"],
        patch_hw: Int[Array, "B P 2"],
        patch_segments: Int[Array, "B P"],
    ) -> Float[Array, "B P/4 D"]:
        rotary = vision_rotary(self.config, patch_hw)
        seen = rows_seen(self.attention, patch_segments, causal=False, axes=image_axes(len(patches)))
        x = constrain_images(self.patch_embed(patches.astype(self.dtype)))

        def step(x: Array, block: VisionBlock) -> tuple[Array, None]:
            return constrain_images(block(x, rotary, seen)), None

        x, _ = scan_layers(step, x, self.blocks, self.remat)
        return self.merger(x)
