"""Low-rank adapters (LoRA, arXiv 2106.09685) on any linear layer of a model."""

import re

import jax
import jax.numpy as jnp
from flax import nnx

from chestx_jax.models.qwen2_vl.layers import linears

LANGUAGE_LINEARS = r"text\.layers\.(attn\.[qkvo]|mlp\.(gate|up|down))_proj"


class LoRAError(ValueError):
    """The adapters asked for do not fit the model."""


class LoRAParam(nnx.Param):
    """A weight of an adapter; `nnx.grad(..., wrt=LoRAParam)` trains these alone."""


def add_lora(model: nnx.Module, rank: int, alpha: float, targets: str, rngs: nnx.Rngs) -> None:
    """Puts y += alpha / rank * (x A) B on every linear layer whose dotted path matches `targets` entirely.

    `lora_b` starts at zero, so the model computes what it computed before. Stacked layers get stacked
    adapters: `lora_a` [L, D, r] normal with standard deviation D**-0.5, `lora_b` [L, r, F].

    Raises:
      LoRAError: rank is not positive, nothing matches, or a match has an adapter already.
    """
    if rank < 1:
        raise LoRAError(f"rank: {rank} must be at least 1")
    matched = [(path, layer) for path, layer in linears(model) if re.fullmatch(targets, path)]
    if not matched:
        raise LoRAError(f"targets: {targets!r} matches none of {[path for path, _ in linears(model)]}")
    for path, layer in matched:
        if layer.lora_a is not None:
            raise LoRAError(f"targets: {path} has an adapter already")
        *stack, fan_in, fan_out = layer.kernel.shape
        dtype = layer.kernel.dtype
        draw = jax.random.normal(rngs.params(), (*stack, fan_in, rank), jnp.float32) * fan_in**-0.5
        layer.lora_a = LoRAParam(draw.astype(dtype))
        layer.lora_b = LoRAParam(jnp.zeros((*stack, rank, fan_out), dtype))
        layer.lora_scale = alpha / rank


def merge_lora(model: nnx.Module) -> None:
    """Adds every adapter to its kernel, in float32, and removes it: a plain model with the same outputs."""
    for _, layer in linears(model):
        if layer.lora_a is None or layer.lora_b is None:
            continue
        a, b = (p[...].astype(jnp.float32) for p in (layer.lora_a, layer.lora_b))
        kernel = layer.kernel[...].astype(jnp.float32) + layer.lora_scale * jnp.matmul(a, b)
        layer.kernel.set_value(kernel.astype(layer.kernel.dtype))
        layer.lora_a = layer.lora_b = None
        layer.lora_scale = 0.0
