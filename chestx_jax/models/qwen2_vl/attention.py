"""Attention over whole rows: XLA's products under a mask, or a kernel that keeps scores out of the device's memory.

Scores of a row take heads x length^2; a kernel makes them block by block (FlashAttention, arXiv 2205.14135). Two are
known, both from JAX: `splash`, Pallas' for TPUs, and `cudnn`, NVIDIA's behind `jax.nn.dot_product_attention`. What a
position sees is the same everywhere: what is in its own segment, and nothing after it where attention is causal.
Padding is a segment like any other (0), so no softmax is empty.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.models.partitioning import TENSOR, mesh_size, per_chip
from chestx_jax.models.qwen2_vl.layers import Block, attend, named

MULTIPLES = {"xla": 1, "splash": 128, "cudnn": 2}
"""Every attention by its name in a config, and what it takes lengths in multiples of: a TPU's vectors have 128 lanes,
and cuDNN's backward pass with a mask wants even lengths."""
_PLATFORMS = {"splash": "tpu", "cudnn": "gpu"}
_BLOCKS = (512, 256, 128)  # rows and columns of the scores that exist at a time, the largest that divides
_CAUSAL_PARTS, _CAUSAL_ROWS = 4, 128  # most parts of a causal mask, and the fewest rows worth one
_LEAF = "config.model.attention"


class AttentionError(Exception):
    """An attention that a device, a type or a length cannot run; the message names the config's leaf."""


def check_attention(attention: str, dtype: Any, head_sizes: Iterable[int]) -> None:
    """Raises AttentionError for a name that is none, and for what `cudnn` does not compute."""
    _known(attention)
    if attention == "cudnn" and jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        raise AttentionError(
            f"{_LEAF}=cudnn computes in bfloat16 or float16; config.model.dtype is {jnp.dtype(dtype).name}"
        )
    odd = [size for size in head_sizes if size % 8 or size > 128]
    if attention == "cudnn" and odd:
        raise AttentionError(f"{_LEAF}=cudnn takes heads of 8, 16, .. 128 numbers; this model has {odd[0]}")


def check_platform(attention: str, platform: str) -> None:
    """Raises AttentionError where devices of this kind ("cpu", "gpu", "tpu") have no such kernel."""
    _known(attention)
    wanted = _PLATFORMS.get(attention, platform)
    if platform != wanted:
        raise AttentionError(
            f"{_LEAF}={attention} runs on {wanted.upper()}s, and the devices of this mesh are {platform.upper()}s; "
            f"{_LEAF}=xla runs everywhere"
        )


def check_lengths(attention: str, lengths: Iterable[int]) -> None:
    """Raises AttentionError for rows of tokens or patches that this attention does not take."""
    multiple = _known(attention)
    wrong = [length for length in lengths if length % multiple]
    if wrong:
        raise AttentionError(
            f"{_LEAF}={attention} takes rows in multiples of {multiple} tokens and patches, not {wrong[0]}: change "
            f"config.data.buckets, or take {_LEAF}=xla"
        )


def _known(attention: str) -> int:
    if attention not in MULTIPLES:
        raise AttentionError(f"{_LEAF} is {attention!r}; it can be {', '.join(MULTIPLES)}")
    return MULTIPLES[attention]


@dataclasses.dataclass(frozen=True)
class Causal:
    """A causal mask in parts, one below the other, each as wide as the last position that its rows may see: what comes
    after is not looked at, 3/8 of all scores where there are four parts."""

    parts: tuple[Bool[Array, "B t s"], ...]


def causal_mask(segments: Int[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Each token sees itself and what came before it in its own segment.

    Samples packed into a row do not see each other. Padding (segment 0), left or right, is seen by padding
    only, so no row is empty and no softmax divides by zero.
    """
    length = segments.shape[1]
    before = jnp.arange(length)[:, None] >= jnp.arange(length)[None, :]
    return before & segment_mask(segments)


def causal_parts(segments: Int[Array, "B T"]) -> Causal:
    """`causal_mask` in parts, for `attend_rows`."""
    mask, length = causal_mask(segments), segments.shape[1]
    rows = max(_CAUSAL_ROWS, math.ceil(length / _CAUSAL_PARTS))
    starts = range(0, length, rows)
    return Causal(tuple(mask[:, start : start + rows, : start + rows] for start in starts))


def segment_mask(segments: Int[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Each position sees its own segment; padding (0) sees padding: no row is empty."""
    return segments[:, :, None] == segments[:, None, :]


@dataclasses.dataclass(frozen=True)
class Fused:
    """A kernel in the place of a mask, for `attend_rows`.

    Attributes:
      run: (queries, keys, values, seen, name) -> [B, T, N, H], on one chip.
      seen: what tells it who sees whom, a row a sample.
      axes: mesh axes that split the rows.
    """

    run: Callable[..., Float[Array, "B T N H"]]
    seen: Array
    axes: tuple[str, ...]

    def __call__(
        self, q: Float[Array, "B N T H"], k: Float[Array, "B K H T"], v: Float[Array, "B K T H"], name: str
    ) -> Float[Array, "B T NH"]:
        run: Callable[..., Array] = partial(self.run, name=name)
        if jax.sharding.get_abstract_mesh().axis_names:
            # A kernel is opaque to the partitioner. Where `tensor` does not divide the key heads they lie whole on
            # every chip (parallel/rules.py), and the query heads of each with them.
            cut = TENSOR not in self.axes and k.shape[1] % mesh_size(TENSOR) == 0
            heads = TENSOR if cut else None
            whole = P(self.axes, heads)
            run = per_chip(run, (whole, whole, whole, P(self.axes)), P(self.axes, None, heads))
        out = run(q, k, v, self.seen)
        return out.reshape(*out.shape[:2], -1)


Seen = Bool[Array, "B T T"] | Causal | Fused


def rows_seen(attention: str, segments: Int[Array, "B T"], *, causal: bool, axes: tuple[str, ...]) -> Seen:
    """What each position of whole rows attends to, in the form that this attention wants.

    Args:
      attention: one of MULTIPLES.
      segments: positions of different segments do not see each other; 0 is padding.
      causal: whether a position sees only itself and what came before.
      axes: mesh axes that split the rows.

    Raises:
      AttentionError: the rows are of a length that it does not take.
    """
    check_lengths(attention, segments.shape[1:])
    if attention == "xla":
        return causal_parts(segments) if causal else segment_mask(segments)
    if attention == "splash":
        return Fused(partial(_splash, causal=causal), segments, axes)
    return Fused(partial(_cudnn, causal=causal), segment_mask(segments), axes)


def attend_rows(
    q: Float[Array, "B N T H"],
    k: Float[Array, "B K H T"],
    v: Float[Array, "B K T H"],
    seen: Seen,
    name: str,
    past: tuple[Block, ...] = (),
) -> Float[Array, "B T NH"]:
    """Softmax attention, its result named for remat policies; what comes after a `past` is for a mask only."""
    if isinstance(seen, Fused):
        if past:
            raise ValueError("a kernel attends over whole rows: it takes no past")
        return seen(q, k, v, name)
    if isinstance(seen, Causal):
        return named(_attend_parts(q, k, v, seen, past), name)
    return named(attend(q, *past, (k, v, seen)), name)


def _attend_parts(q: Array, k: Array, v: Array, seen: Causal, past: tuple[Block, ...]) -> Array:
    done = []
    for mask in seen.parts:
        rows, end = mask.shape[1:]
        own = k[..., :end], v[:, :, :end], mask
        done.append(attend(q[:, :, end - rows : end], *past, own))
    return jnp.concatenate(done, axis=1)


def _splash(
    q: Float[Array, "B N T H"],
    k: Float[Array, "B K H T"],
    v: Float[Array, "B K T H"],
    segments: Int[Array, "B T"],
    *,
    causal: bool,
    name: str,
) -> Float[Array, "B T N H"]:
    # only this attention waits for Pallas to be imported
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    heads, length, width = q.shape[1:]
    mask = (splash.CausalMask if causal else splash.FullMask)((length, length))
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=_block_sizes(length),
        head_shards=1,
        q_seq_shards=1,
        # The kernel's own residuals take the name: saving what leaves it would keep a second copy, and redo it.
        residual_checkpoint_name=name,
    )
    scaled = (q.astype(jnp.float32) * width**-0.5).astype(q.dtype)
    out = jax.vmap(kernel)(scaled, k.swapaxes(2, 3), v, splash.SegmentIds(segments, segments))
    return out.swapaxes(1, 2)


def _block_sizes(length: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes

    size = next(size for size in _BLOCKS if length % size == 0)
    return BlockSizes(
        block_q=size,
        block_kv=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_q_dq=size,
        block_kv_dq=size,
    )


def _cudnn(
    q: Float[Array, "B N T H"],
    k: Float[Array, "B K H T"],
    v: Float[Array, "B K T H"],
    mask: Bool[Array, "B T T"],
    *,
    causal: bool,
    name: str,
) -> Float[Array, "B T N H"]:
    out = jax.nn.dot_product_attention(
        q.swapaxes(1, 2),
        k.transpose(0, 3, 1, 2),
        v.swapaxes(1, 2),
        mask=mask[:, None],
        is_causal=causal,  # beside the mask, so that blocks after the diagonal are skipped
        implementation="cudnn",
    )
    return named(out, name)
