"""Kernels against XLA's attention: Pallas' splash in interpret mode; cuDNN by its reference, and by what it lowers to."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.experimental.pallas.ops.tpu import splash_attention

from chestx_jax.models.partitioning import BATCH_AXES, EVERYWHERE
from chestx_jax.models.qwen2_vl import AttentionError, Qwen2VL
from chestx_jax.models.qwen2_vl.attention import (
    attend_rows,
    check_lengths,
    check_platform,
    rows_seen,
)
from chestx_jax.models.qwen2_vl.continuation import continuation_hidden
from chestx_jax.parallel import make_mesh
from chestx_jax.training import sft
from configs import sft as recipe
from tests.models import cases

LENGTH = 384  # three blocks of 128
CASE = cases.CASES[1]


@pytest.fixture
def interpreted(monkeypatch):
    """Splash as this machine can run it."""
    make = partial(splash_attention.make_splash_mha, interpret=True)
    monkeypatch.setattr(splash_attention, "make_splash_mha", make)


@pytest.fixture
def cudnn_by_reference(monkeypatch):
    """What `jax.nn.dot_product_attention` promises of cuDNN, computed by XLA."""
    attention = jax.nn.dot_product_attention

    def reference(*args, implementation, **kwargs):
        assert implementation == "cudnn"
        return attention(*args, implementation="xla", **kwargs)

    monkeypatch.setattr(jax.nn, "dot_product_attention", reference)


def inputs(heads: int, kv_heads: int, width: int, dtype=jnp.float32, rows: int = 2) -> tuple[jax.Array, ...]:
    """Queries, keys, values, and rows of segments: left padding and three samples; one sample and right padding."""
    keys = jax.random.split(jax.random.key(0), 3)
    q = 2 * jax.random.normal(keys[0], (rows, heads, LENGTH, width), dtype)
    k = jax.random.normal(keys[1], (rows, kv_heads, width, LENGTH), dtype)
    v = jax.random.normal(keys[2], (rows, kv_heads, LENGTH, width), dtype)
    packed = np.repeat([0, 1, 2, 3], [30, 130, 4, 220])
    single = np.repeat([1, 0], [301, 83])
    return q, k, v, jnp.asarray(np.stack([packed, single] * (rows // 2)), jnp.int32)


def value_and_gradients(attention: str, causal: bool, axes: tuple[str, ...], *args: jax.Array):
    """The attention, and the gradients of a sum over it in which every number has a weight of its own."""

    def weighted(q, k, v, segments):
        seen = rows_seen(attention, segments, causal=causal, axes=axes)
        out = attend_rows(q, k, v, seen, "attention").astype(jnp.float32)
        return jnp.sum(out * jnp.sin(jnp.arange(out.size)).reshape(out.shape)), out

    return jax.jit(jax.value_and_grad(weighted, argnums=(0, 1, 2), has_aux=True))(*args)


def assert_equal(got, expected, atol: float = 2e-5) -> None:
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs, atol=atol, rtol=1e-4)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "causal"),
    [(4, 2, 128, True), (2, 2, 80, False), (6, 2, 80, True), (2, 1, 128, False)],
)
def test_splash_is_xlas_attention(interpreted, heads, kv_heads, width, causal):
    """Values and gradients, padding too: what a row of it gives is finite, and the same."""
    args = inputs(heads, kv_heads, width)
    got = value_and_gradients("splash", causal, BATCH_AXES, *args)
    assert_equal(got, value_and_gradients("xla", causal, BATCH_AXES, *args))
