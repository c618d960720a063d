"""Attention in causal parts, and kernels, against XLA's under a mask: splash in interpret mode, cuDNN by its reference
and by what it lowers to."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.experimental.pallas.ops.tpu import splash_attention

from chestx_jax.models.partitioning import BATCH_AXES, EVERYWHERE
from chestx_jax.models.qwen2_vl import AttentionError, Qwen2VL, attention
from chestx_jax.models.qwen2_vl.attention import attend_rows, check_lengths, check_platform, rows_seen
from chestx_jax.models.qwen2_vl.continuation import continuation_hidden
from chestx_jax.parallel import make_mesh
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
    ("length", "fewest", "parts"), [(100, 128, 1), (130, 128, 2), (384, 128, 3), (383, 32, 4)]
)
def test_causal_rows_in_parts_attend_as_under_the_whole_mask(monkeypatch, length, fewest, parts):
    """Values and gradients, after a prompt that two rows share; nothing is computed past the end of a part."""
    monkeypatch.setattr(attention, "_CAUSAL_ROWS", fewest)
    q, k, v, segments = inputs(4, 2, 16)
    prompt = k[:1, ..., :5], v[:1, :, :5], jnp.asarray([[[True, False, True, True, True]]])
    q, k, v, segments = q[:, :, :length], k[..., :length], v[:, :, :length], segments[:, :length]
    seen = attention.causal_parts(segments)
    assert len(seen.parts) == parts
    assert [part.shape[2] for part in seen.parts] == np.cumsum(
        [part.shape[1] for part in seen.parts]
    ).tolist()

    def weighted(seen, q, k, v):
        out = attend_rows(q, k, v, seen, "attention", (prompt,))
        return jnp.sum(out * jnp.sin(jnp.arange(out.size)).reshape(out.shape)), out

    got, expected = (
        jax.jit(jax.value_and_grad(partial(weighted, seen), argnums=(0, 1, 2), has_aux=True))(q, k, v)
        for seen in (seen, attention.causal_mask(segments))
    )
    assert_equal(got, expected)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "causal"), [(4, 2, 128, True), (2, 2, 80, False), (2, 1, 80, True)]
)
def test_splash_is_xlas_attention(interpreted, heads, kv_heads, width, causal):
    """Values and gradients, padding too: what a row of it gives is finite, and the same."""
    args = inputs(heads, kv_heads, width)
    got = value_and_gradients("splash", causal, BATCH_AXES, *args)
    assert_equal(got, value_and_gradients("xla", causal, BATCH_AXES, *args))


@pytest.mark.parametrize(
    ("kv_heads", "causal", "axes"), [(2, True, BATCH_AXES), (1, True, BATCH_AXES), (2, False, EVERYWHERE)]
)
def test_splash_on_a_mesh(interpreted, monkeypatch, kv_heads, causal, axes):
    """Rows over replica and fsdp, heads over tensor where it divides those of the keys; patches over all three."""
    monkeypatch.setattr("tests.models.test_attention.LENGTH", 128)
    rows = 4 if axes == BATCH_AXES else 8
    q, k, v, _ = inputs(4, kv_heads, 16, rows=rows)
    segments = jnp.asarray(np.tile(np.repeat([0, 1, 2], [5, 100, 23]), (rows, 1)), jnp.int32)
    expected = value_and_gradients("xla", causal, axes, q, k, v, segments)
    with jax.set_mesh(make_mesh({"replica": 2, "fsdp": 2, "tensor": 2})):
        assert_equal(value_and_gradients("splash", causal, axes, q, k, v, segments), expected)


@pytest.mark.parametrize(("width", "causal"), [(128, True), (80, False)])
def test_cudnn_is_asked_for_xlas_attention(cudnn_by_reference, width, causal):
    args = inputs(4, 2, width)
    got = value_and_gradients("cudnn", causal, BATCH_AXES, *args)
    assert_equal(got, value_and_gradients("xla", causal, BATCH_AXES, *args))


@pytest.mark.parametrize(("width", "causal"), [(128, True), (80, False)])
def test_cudnn_takes_our_shapes(monkeypatch, width, causal):
    """JAX's checks of shapes and types let them pass, forward and backward, and call cuDNN's kernels."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91300)
    args = inputs(4, 2, width, jnp.bfloat16)

    def loss(q, k, v, segments):
        seen = rows_seen("cudnn", segments, causal=causal, axes=BATCH_AXES)
        return attend_rows(q, k, v, seen, "attention").astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*args)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = set(re.findall(r"__cudnn\$fmha\w+", text))
    assert calls == {"__cudnn$fmhaScaleBiasSoftmax", "__cudnn$fmhaScaleBiasSoftmaxBackward"}


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    """Rows that splash takes, padded on the left."""
    rows = cases.unpadded_rows(CASE)[:2]
    room = {f"extra_{name}": 128 - max(len(row[name]) for row in rows) for name in ("tokens", "patches")}
    return cases.pad_rows(rows, "left", **room)


def test_a_model_with_splash_is_the_model(interpreted, batch):
    """Logits and all gradients, vision tower included, when the backward pass redoes what is not kept."""
    expected, their_gradients = cases.logits_and_gradients(cases.build(CASE.config), batch)
    model = cases.build(CASE.config, attention="splash", remat="minimal")
    logits, gradients = cases.logits_and_gradients(model, batch)
    np.testing.assert_allclose(logits, expected, atol=5e-5)  # at padding too
    for path, gradient in gradients.items():
        np.testing.assert_allclose(gradient, their_gradients[path], atol=5e-5, err_msg=path)


def test_prompts_are_read_by_splash(interpreted, batch):
    """Prefill, and the prompts of groups of completions."""
    plain, model = cases.build(CASE.config), cases.build(CASE.config, attention="splash")
    prefill = jax.jit(Qwen2VL.prefill, static_argnames=("slots", "group"))
    for ours, theirs in zip(
        jax.tree.leaves(prefill(model, batch, slots=2)),
        jax.tree.leaves(prefill(plain, batch, slots=2)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)
    tokens, mask = np.full((4, 5), 11), np.ones((4, 5), bool)
    run = jax.jit(continuation_hidden)
    np.testing.assert_allclose(run(model, batch, tokens, mask), run(plain, batch, tokens, mask), atol=5e-5)
    assert "splash" in str(jax.make_jaxpr(continuation_hidden)(model, batch, tokens, mask))


@pytest.mark.parametrize(("remat", "forward"), [("minimal", 2), ("mlp", 3), ("full", 4), ("none", 2)])
def test_what_splash_leaves_is_kept_by_name(batch, remat, forward):
    """On a TPU the forward kernel runs once in each tower, and again where the policy keeps nothing of it."""
    graph, state = nnx.split(cases.build(CASE.config, attention="splash", remat=remat), nnx.Param)
    step = jax.jit(jax.grad(lambda state: cases.loss(nnx.merge(graph, state)(batch), batch)))
    text = step.trace(state).lower(lowering_platforms=("tpu",)).as_text()
    kernels = re.findall(r'kernel_name = "splash_mha_(\w+?)_segmented', text)
    assert {name: kernels.count(name) for name in kernels} == {"fwd": forward, "dq": 2, "dkv": 2}


def test_what_no_kernel_can_do_is_an_error_that_names_the_leaf():
    with pytest.raises(
        AttentionError, match=r"config.model.attention is 'flash'; it can be xla, splash, cudnn"
    ):
        cases.build(CASE.config, attention="flash")
    with pytest.raises(
        AttentionError, match=r"attention=cudnn computes in bfloat16 .* config.model.dtype is float32"
    ):
        cases.build(CASE.config, attention="cudnn")
    with pytest.raises(AttentionError, match=r"attention=cudnn takes heads of 8, 16, .* has 20"):
        odd = dataclasses.replace(CASE.config, num_heads=4, hidden_size=80, mrope_section=(4, 3, 3))
        cases.build(odd, attention="cudnn", dtype=jnp.bfloat16)
    with pytest.raises(AttentionError, match=r"config.model.attention=splash runs on TPUs, .* are CPUs"):
        check_platform("splash", "cpu")
    check_platform("xla", "cpu")
    check_platform("cudnn", "gpu")
    with pytest.raises(
        AttentionError, match=r"multiples of 128 tokens and patches, not 1000: .*config.data.buckets"
    ):
        check_lengths("splash", (1024, 1000))
    check_lengths("xla", (1000, 7))


def test_rows_that_splash_does_not_take_are_an_error(batch):
    short = {**batch, "tokens": batch["tokens"][:, :100], "segments": batch["segments"][:, :100]}
    short |= {"positions": batch["positions"][..., :100], "image_index": batch["image_index"][:, :100]}
    model = cases.build(CASE.config, attention="splash")
    with pytest.raises(AttentionError, match="not 100"):
        jax.eval_shape(Qwen2VL.hidden, model, short)


def test_a_kernel_takes_no_past():
    q, k, v, segments = inputs(2, 2, 16)
    with pytest.raises(ValueError, match="no past"):
        attend_rows(
            q,
            k,
            v,
            rows_seen("splash", segments, causal=True, axes=BATCH_AXES),
            "attention",
            ((k, v, segments),),
        )
