"""Cross-entropy over the answer tokens, in chunks along time.

The logits of a chunk are made, used and forgotten, so a full [B, T, vocabulary] array never exists. Their gradient
is taken in the same pass: a sum's gradient needs nothing from above but a factor, so no logit is made twice
(the idea of Liger Kernel's fused linear cross-entropy, arXiv 2410.10989, section 3.2).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.models.partitioning import (
    BATCH_AXES,
    fsdp_parts,
    gather,
    kernel_spec,
    per_chip,
    scatter,
    scatter_stages,
)


@struct.dataclass
class TokenSums:
    """Sums over target tokens; divide by `count` for means. Sums add up exactly over micro-batches."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def zero(cls) -> "TokenSums":
        """The sums over no token."""
        return cls(loss=jnp.zeros(()), correct=jnp.zeros(()), count=jnp.zeros(()))

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return jax.tree.map(jnp.add, self, other)


def chunked_cross_entropy(
    kernel: Float[Array, "D V"],
    hidden: Float[Array, "B T D"],
    tokens: Int[Array, "B T"],
    loss_mask: Bool[Array, "B T"],
    chunk: int,
) -> TokenSums:
    """Sum of -log p(token) over the tokens that `loss_mask` marks as targets.

    The hidden state at index t - 1 predicts the token at index t, so a mask at index 0 asks for what nothing
    can predict and is ignored (the pipeline never sets it). Only `loss` has a gradient.

    Args:
      kernel: from hidden states to logits (`Qwen2VL.head_kernel`); multiplied in the type of `hidden`, float32 out.
      hidden: final-norm states.
      tokens: token ids.
      loss_mask: True where the token is a target.
      chunk: positions whose logits exist at a time; the last chunk is padded with masked positions.
    """
    return _sums(kernel, hidden[:, :-1], tokens[:, 1:], loss_mask[:, 1:].astype(jnp.float32), chunk)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sums(kernel: Array, hidden: Array, targets: Array, mask: Array, chunk: int) -> TokenSums:
    return _on_mesh(kernel, hidden, targets, mask, chunk, gradients=False)[0]


def _forward(kernel: Array, hidden: Array, targets: Array, mask: Array, chunk: int) -> tuple[TokenSums, Any]:
    sums, d_kernel, d_hidden = _on_mesh(kernel, hidden, targets, mask, chunk, gradients=True)
    return sums, (d_kernel.astype(kernel.dtype), d_hidden)


def _backward(chunk: int, saved: tuple[Array, Array], above: TokenSums) -> tuple[Array | None, ...]:
    d_kernel, d_hidden = saved
    return (
        above.loss.astype(d_kernel.dtype) * d_kernel,
        above.loss.astype(d_hidden.dtype) * d_hidden,
        None,
        None,
    )


_sums.defvjp(_forward, _backward)


def _on_mesh(kernel: Array, hidden: Array, targets: Array, mask: Array, chunk: int, gradients: bool) -> Any:
    """`_chunks` on each chip's rows: the kernel is gathered once, its gradient reduce-scattered once."""
    parts, vocabulary = fsdp_parts(kernel.shape[0]), kernel.shape[1]
    run = partial(_chunks, chunk=chunk, gradients=gradients)
    if parts == 1:
        return run(kernel.astype(hidden.dtype), hidden, targets, mask)

    def local(part: Array, *rows: Array) -> Any:
        sums, d_kernel, d_hidden = run(gather(part, 0, vocabulary), *rows)
        sums = jax.tree.map(lambda x: jax.lax.psum(x, BATCH_AXES), sums)
        if gradients:
            d_kernel = scatter(d_kernel, 0, vocabulary, scatter_stages(parts))
            d_kernel = jax.lax.psum(d_kernel, BATCH_AXES[0])
        return sums, d_kernel, d_hidden

    rows = P(BATCH_AXES)
    out = (P(), kernel_spec(0) if gradients else None, rows if gradients else None)
    return per_chip(local, (kernel_spec(0), rows, rows, rows), out)(
        kernel.astype(hidden.dtype), hidden, targets, mask
    )


def _chunks(kernel: Array, hidden: Array, targets: Array, mask: Array, *, chunk: int, gradients: bool) -> Any:
    """(sums, gradient of the kernel, gradient of the hidden states), the latter two None when not asked for."""
    batch, length, width = hidden.shape
    chunk = min(chunk, length)
    padding = -length % chunk

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(batch, -1, chunk, *x.shape[2:]).swapaxes(0, 1)

    def step(carry: tuple[TokenSums, Any], part: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        (sums, d_kernel), (h, y, m) = carry, part
        logits = jnp.einsum("bcd,dv->bcv", h, kernel, preferred_element_type=jnp.float32)
        is_target = jax.lax.broadcasted_iota(y.dtype, logits.shape, 2) == y[..., None]
        log_total = jax.nn.logsumexp(logits, axis=-1)
        loss = log_total - jnp.where(is_target, logits, 0).sum(axis=-1)
        hit = (jnp.argmax(logits, axis=-1) == y).astype(jnp.float32)
        sums = sums + TokenSums(loss=(loss * m).sum(), correct=(hit * m).sum(), count=m.sum())
        if not gradients:
            return (sums, None), None
        slope = (jnp.exp(logits - log_total[..., None]) - is_target) * m[..., None]
        slope = slope.astype(h.dtype)
        d_kernel += jnp.einsum("bcd,bcv->dv", h, slope, preferred_element_type=jnp.float32)
        return (sums, d_kernel), jnp.einsum("bcv,dv->bcd", slope, kernel)

    start = jnp.zeros(kernel.shape, jnp.float32) if gradients else None
    (sums, d_kernel), d_hidden = jax.lax.scan(
        step, (TokenSums.zero(), start), (split(hidden), split(targets), split(mask))
    )
    if not gradients:
        return sums, None, None
    d_hidden = d_hidden.swapaxes(0, 1).reshape(batch, -1, width)[:, :length]
    return sums, d_kernel.astype(hidden.dtype), d_hidden
