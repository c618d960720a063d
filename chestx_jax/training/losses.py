"""Cross-entropy over the answer tokens, in chunks of tokens.

The logits of a chunk are made, used and forgotten, so a full [B, T, vocabulary] array never exists, and chunks
without a target are passed over. Their gradient is taken in the same pass: a sum's gradient needs nothing from
above but a factor, so no logit is made twice (the idea of Liger Kernel's fused linear cross-entropy, arXiv
2410.10989, section 3.2).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.models.partitioning import (
    EVERYWHERE,
    FSDP,
    TENSOR,
    gather,
    kernel_gradient,
    mesh_size,
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
      chunk: positions of every row whose logits exist at a time (rows are chunked as one line of tokens).
    """
    length, width = hidden.shape[1:]
    targets = jnp.roll(tokens, -1, axis=1).reshape(-1)
    mask = jnp.roll(loss_mask.at[:, 0].set(False), -1, axis=1).astype(jnp.float32).reshape(-1)
    return _sums(kernel, hidden.reshape(-1, width), targets, mask, -(-length // chunk))


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sums(kernel: Array, hidden: Array, targets: Array, mask: Array, chunks: int) -> TokenSums:
    return _on_mesh(kernel, hidden, targets, mask, chunks, gradients=False)[0]


def _forward(kernel: Array, hidden: Array, targets: Array, mask: Array, chunks: int) -> tuple[TokenSums, Any]:
    sums, d_kernel, d_hidden = _on_mesh(kernel, hidden, targets, mask, chunks, gradients=True)
    return sums, (d_kernel.astype(kernel.dtype), d_hidden)


def _backward(chunks: int, saved: tuple[Array, Array], above: TokenSums) -> tuple[Array | None, ...]:
    d_kernel, d_hidden = saved
    return (
        above.loss.astype(d_kernel.dtype) * d_kernel,
        above.loss.astype(d_hidden.dtype) * d_hidden,
        None,
        None,
    )


_sums.defvjp(_forward, _backward)


def _on_mesh(kernel: Array, hidden: Array, targets: Array, mask: Array, chunks: int, gradients: bool) -> Any:
    """`_chunks` on each chip's tokens, those of the tensor axis too: the kernel is gathered once, its gradient
    reduce-scattered once."""
    kernel = kernel.astype(hidden.dtype)
    run = partial(_chunks, chunks=chunks, gradients=gradients)
    if mesh_size(*EVERYWHERE) == 1 or len(hidden) % mesh_size(*EVERYWHERE):
        return run(kernel, hidden, targets, mask)
    outer = FSDP if kernel.shape[0] % mesh_size(FSDP) == 0 else None
    inner = TENSOR if kernel.shape[1] % mesh_size(TENSOR) == 0 else None
    whole_over = tuple(axis for axis in EVERYWHERE if axis not in (outer, inner))

    def local(part: Array, *rows: Array) -> Any:
        whole = jax.lax.all_gather(part, TENSOR, axis=1, tiled=True) if inner else part
        sums, d_kernel, d_hidden = run(gather(whole, 0) if outer else whole, *rows)
        sums = jax.tree.map(lambda x: jax.lax.psum(x, EVERYWHERE), sums)
        if gradients:
            if outer:
                d_kernel = scatter(d_kernel, 0, scatter_stages(mesh_size(FSDP)))
            if inner:
                d_kernel = jax.lax.psum_scatter(d_kernel, TENSOR, scatter_dimension=1, tiled=True)
            d_kernel = jax.lax.psum(d_kernel, whole_over)
        return sums, d_kernel, d_hidden

    rows, lies = P(EVERYWHERE), P(outer, inner)
    out = (P(), lies if gradients else None, rows if gradients else None)
    return per_chip(local, (lies, rows, rows, rows), out)(kernel, hidden, targets, mask)


class _Loop(NamedTuple):
    chunk: Int[Array, ""]
    more: Bool[Array, ""]  # whether this chunk, or one after it, holds a target
    sums: TokenSums
    d_kernel: Any  # None when no gradients are asked for
    d_hidden: Any


def _chunks(
    kernel: Array, hidden: Array, targets: Array, mask: Array, *, chunks: int, gradients: bool
) -> Any:
    """(sums, gradient of the kernel, gradient of the hidden states), the latter two None when not asked for."""
    tokens, width = hidden.shape
    padding = -tokens % chunks

    def split(x: Array) -> Array:
        return jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)).reshape(chunks, -1, *x.shape[1:])

    # targets first: the chunks behind them hold only questions, images and padding, whose logits nobody needs
    order = jnp.argsort(mask == 0)
    hs, ys, ms = (split(x[order]) for x in (hidden, targets, mask))

    def step(loop: _Loop) -> _Loop:
        h, y, m = hs[loop.chunk], ys[loop.chunk], ms[loop.chunk]
        logits = jnp.matmul(h, kernel, preferred_element_type=jnp.float32)
        is_target = jax.lax.broadcasted_iota(y.dtype, logits.shape, 1) == y[:, None]
        top = logits.max(axis=-1)
        shares = jnp.exp(logits - top[:, None])
        total = shares.sum(axis=-1)
        score = jnp.where(is_target, logits, 0).sum(axis=-1)
        loss = top + jnp.log(total) - score
        hit = (score == top).astype(jnp.float32)
        sums = loop.sums + TokenSums(loss=(loss * m).sum(), correct=(hit * m).sum(), count=m.sum())
        following = loop.chunk + 1
        more = ms[jnp.minimum(following, chunks - 1)].any()
        if not gradients:
            return _Loop(following, more, sums, None, None)
        slope = (shares * (m / total)[:, None] - jnp.where(is_target, m[:, None], 0)).astype(h.dtype)
        d_kernel = loop.d_kernel + kernel_gradient(h, slope, jnp.float32)
        d_hidden = loop.d_hidden.at[loop.chunk].set(jnp.matmul(slope, kernel.T))
        return _Loop(following, more, sums, d_kernel, d_hidden)

    # A loop that ends early, not a scan over `lax.cond`: the branches would hold the kernel's gradient several times.
    start = _Loop(
        chunk=jnp.asarray(0),
        more=ms[0].any(),
        sums=TokenSums.zero(),
        d_kernel=jnp.zeros(kernel.shape, jnp.float32) if gradients else None,
        d_hidden=jnp.zeros_like(hs) if gradients else None,
    )
    end = jax.lax.while_loop(lambda loop: (loop.chunk < chunks) & loop.more, step, start)
    if not gradients:
        return end.sums, None, None
    d_hidden = end.d_hidden.reshape(-1, width)[:tokens]
    back = jnp.zeros_like(hidden).at[order].set(d_hidden, unique_indices=True)
    return end.sums, end.d_kernel.astype(hidden.dtype), back
