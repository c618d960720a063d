"""What no reference can tell: causality, isolation, padding, rematerialisation, precision."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import print_saved_residuals

from chestx_jax.models.qwen2_vl import Qwen2VL, layers
from chestx_jax.models.qwen2_vl.attention import causal_mask
from chestx_jax.models.qwen2_vl.layers import attend
from chestx_jax.models.qwen2_vl.rope import text_rotary
from tests.models import cases

CASE = cases.CASES[1]


@pytest.fixture(scope="module")
def model():
    return cases.build(CASE.config)


def test_no_token_sees_a_later_one(model):
    """The gradient of the state at t with respect to the embeddings is zero after t, and not before."""
    row = cases.unpadded_rows(CASE)[0]
    length = len(row["tokens"])
    embeddings = jax.random.normal(jax.random.key(0), (1, length, CASE.config.hidden_size))
    positions, segments = row["positions"][None], row["segments"][None]

    @jax.jit
    @jax.grad
    def influence(x, t):
        return jnp.sum(model.text.hidden(x, positions, segments)[0, t] ** 2)

    for t in (0, length // 2, length - 2):
        seen = np.abs(influence(embeddings, t)[0]).sum(-1)
        assert (seen[: t + 1] > 0).all()
        assert (seen[t + 1 :] == 0).all()


def pack(rows: list[dict]) -> dict[str, np.ndarray]:
    """Several examples in one row, told apart by segments."""
    merge = CASE.config.vision.merge_unit
    packed = {key: [] for key in rows[0] if key != "grids"}
    images = features = 0
    for number, row in enumerate(rows, start=1):
        shifted = {
            **row,
            "segments": row["segments"] * number,
            "patch_segments": row["patch_segments"] + images,
            "image_index": np.where(row["image_index"] >= 0, row["image_index"] + features, -1),
        }
        images += len(row["grids"])
        features += len(row["patches"]) // merge
        for key in packed:
            packed[key].append(shifted[key])
    return {
        key: np.concatenate(value, axis=-1 if key == "positions" else 0)[None]
        for key, value in packed.items()
    }


def test_packing_equals_running_apart(model):
    rows = cases.unpadded_rows(CASE)
    apart = [np.asarray(cases.run(model, cases.pad_rows([row], extra_tokens=0)))[0] for row in rows]
    together = np.asarray(cases.run(model, pack(rows)))[0]
    np.testing.assert_allclose(together, np.concatenate(apart), atol=2e-5)


def test_padding_side_and_content_do_not_matter(model):
    rows = cases.unpadded_rows(CASE)
    left, right = cases.pad_rows(rows, "left"), cases.pad_rows(rows, "right", extra_tokens=5, extra_patches=8)
    right["patches"] = np.where((right["patch_segments"] > 0)[..., None], right["patches"], 1e4)
    right["patch_hw"] = np.where((right["patch_segments"] > 0)[..., None], right["patch_hw"], 99)
    got = [np.asarray(cases.run(model, batch))[batch["segments"] > 0] for batch in (left, right)]
    np.testing.assert_allclose(*got, atol=2e-5)


encode = jax.jit(Qwen2VL.encode_images)


def test_images_are_encoded_alone(model):
    """The features of an image are those it has without its neighbours and without padding patches."""
    row = cases.unpadded_rows(CASE)[0]
    batch = cases.pad_rows([row], extra_patches=12)
    names = ("patches", "patch_hw", "patch_segments")
    together = encode(model, *(batch[name] for name in names))[0]
    start = 0
    for _, h, w in row["grids"]:
        alone = encode(model, *(row[name][None, start : start + h * w] for name in names))[0]
        np.testing.assert_allclose(together[start // 4 : (start + h * w) // 4], alone, atol=2e-5)
        start += h * w


def test_a_row_of_padding_is_finite():
    """Neither the values nor the gradients of a batch with an all-padding row are NaN."""
    case = dataclasses.replace(CASE, rows=CASE.rows[:2])
    batch = cases.make_batch(case)
    for name in ("segments", "patch_segments", "loss_mask"):
        batch[name][1] = 0
    logits, gradients = cases.logits_and_gradients(cases.build(case.config), batch)
    assert np.isfinite(logits).all()
    assert all(np.isfinite(g).all() for g in gradients.values())


def test_attention_over_nothing_is_finite():
    q = v = jax.random.normal(jax.random.key(0), (1, 2, 3, 8))
    k, mask = q.swapaxes(2, 3), jnp.zeros((1, 3, 3), bool)
    out, grads = jax.jit(jax.value_and_grad(lambda args: jnp.sum(attend(args[0], (*args[1:], mask)) ** 2)))(
        (q, k, v)
    )
    assert np.isfinite(out) and all(np.isfinite(g).all() for g in grads)


def test_attention_over_blocks_is_attention_over_their_concatenation():
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (2, 4, 3, 8))
    k, v = jax.random.normal(keys[1], (2, 2, 8, 5)), jax.random.normal(keys[2], (2, 2, 5, 8))
    mask = jnp.tril(jnp.ones((2, 3, 5), bool), 2)
    blocks = [(k[..., s], v[:, :, s], mask[:, :, s]) for s in (slice(0, 4), slice(4, 5))]
    run = jax.jit(attend)
    np.testing.assert_allclose(run(q, *blocks), run(q, (k, v, mask)), atol=1e-6)


def test_rows_of_a_group_share_a_block_as_if_each_had_its_own():
    """Two prompts, three rows each, beside a block of every row's own; values and gradients."""
    keys = jax.random.split(jax.random.key(0), 5)
    q = jax.random.normal(keys[0], (6, 4, 3, 8))
    k, v = jax.random.normal(keys[1], (2, 2, 8, 5)), jax.random.normal(keys[2], (2, 2, 5, 8))
    seen = jnp.array([[[1, 1, 1, 0, 0]], [[0, 1, 1, 1, 1]]], bool)
    own = jax.random.normal(keys[3], (6, 2, 8, 3)), jax.random.normal(keys[4], (6, 2, 3, 8))
    causal = jnp.tril(jnp.ones((6, 3, 3), bool))

    def shared(q, k, v):
        return attend(q, (k, v, seen), (*own, causal))

    def repeated(q, k, v):
        past = (jnp.repeat(x, 3, axis=0) for x in (k, v, jnp.broadcast_to(seen, (2, 3, 5))))
        return attend(q, tuple(past), (*own, causal))

    def run(f):
        return jax.jit(jax.value_and_grad(lambda *args: jnp.sum(f(*args) ** 2), argnums=(0, 1, 2)))(q, k, v)

    np.testing.assert_allclose(jax.jit(shared)(q, k, v), jax.jit(repeated)(q, k, v), atol=1e-6)
    for ours, theirs in zip(run(shared)[1], run(repeated)[1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_remat_policies_give_the_same_gradients():
    batch = cases.make_batch(CASE)
    _, expected = cases.logits_and_gradients(cases.build(CASE.config), batch)
    assert set(layers.POLICIES) == {"full", "most", "mlp", "minimal"}
    for policy in layers.POLICIES:
        _, gradients = cases.logits_and_gradients(cases.build(CASE.config, remat=policy), batch)
        for path, g in gradients.items():
            np.testing.assert_allclose(g, expected[path], atol=1e-5, err_msg=f"{policy} {path}")


@pytest.fixture
def kept_for_backward(capsys):
    """What the backward pass of one decoder layer keeps under a policy: JAX's own lines, and their size."""

    def look(policy: str) -> tuple[str, int]:
        model, batch = cases.build(CASE.config), cases.make_batch(CASE)
        rotary = text_rotary(CASE.config, batch["positions"])
        mask = causal_mask(batch["segments"])
        first = jax.tree.map(lambda p: p[0], model.text.layers)

        def layer(x, module):
            return module(x, rotary, mask)[0]

        run = layer if policy == "none" else jax.checkpoint(layer, policy=layers.POLICIES[policy])
        print_saved_residuals(run, model.embed_batch(batch), first)
        lines = [line for line in capsys.readouterr().out.splitlines() if "argument" not in line]
        shapes = [re.match(r"\w+\[([\d,]*)\]", line).group(1) for line in lines]
        return "\n".join(lines), sum(int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes)

    return look


def test_minimal_policy_keeps_what_it_names(kept_for_backward):
    """A misspelt name in a policy is silent in JAX: look at what is really kept for the backward pass."""
    lines, minimal = kept_for_backward("minimal")
    for name in ("qkv", "attention", "o_proj"):
        assert f"named '{name}'" in lines, lines
    assert lines.count("named 'qkv'") == 3
    sizes = {policy: kept_for_backward(policy)[1] for policy in ("none", "full")}
    lines, mlp = kept_for_backward("mlp")
    assert "named 'up_proj'" in lines and lines.count("named 'qkv'") == 3
    lines, most = kept_for_backward("most")
    assert "named 'gate_proj'" in lines
    assert sizes["full"] < minimal < mlp < most < sizes["none"], sizes


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="remat"):
        cases.build(CASE.config, remat="some")
    with pytest.raises(ValueError, match="checkpoint name"):
        layers.named(jnp.ones(1), "qvk")


def test_bfloat16_parameters_and_computation():
    """Parameters stay bfloat16, logits are float32, and the result is near the float32 one."""
    batch = cases.make_batch(CASE)
    model = cases.build(CASE.config, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    assert {p.dtype for p in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype(jnp.bfloat16)}
    assert jax.eval_shape(Qwen2VL.hidden, model, batch).dtype == jnp.bfloat16
    logits, gradients = cases.logits_and_gradients(model, batch)
    expected = np.asarray(cases.run(cases.build(CASE.config), batch))
    real = batch["segments"] > 0
    assert logits.dtype == jnp.float32
    assert np.abs(logits - expected)[real].mean() < 0.05
    assert all(np.isfinite(g.astype(np.float32)).all() for g in gradients.values())


def test_mixed_precision_keeps_float32_gradients():
    model, batch = cases.build(CASE.config, dtype=jnp.bfloat16), cases.make_batch(CASE)
    assert model.text.norm.scale.dtype == jnp.float32
    gradients = jax.eval_shape(jax.grad(lambda m: cases.loss(m(batch), batch)), model)
    assert {g.dtype for g in jax.tree.leaves(gradients)} == {np.dtype(np.float32)}


def test_scanned_layers_compile_once():
    """Depth does not grow the program: layers are scanned, not unrolled."""

    def size(layers: int) -> int:
        config = dataclasses.replace(CASE.config, num_layers=layers)
        model = nnx.eval_shape(lambda: Qwen2VL(config, rngs=nnx.Rngs(0)))
        return len(jax.jit(Qwen2VL.__call__).lower(model, cases.make_batch(CASE)).as_text())

    assert size(12) < 1.05 * size(2)


def test_batch_is_split_over_the_mesh_that_is_set(model):
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = jax.make_mesh((2, 2, 2), ("replica", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    batch = cases.make_batch(CASE)
    expected = cases.run(model, batch)
    with jax.set_mesh(mesh):
        hidden = jax.jit(Qwen2VL.hidden)(model, batch)
        logits = jax.jit(Qwen2VL.__call__)(model, batch)
    assert hidden.sharding.is_equivalent_to(NamedSharding(mesh, P(("replica", "fsdp"))), hidden.ndim)
    real = batch["segments"] > 0
    np.testing.assert_allclose(np.asarray(logits)[real], np.asarray(expected)[real], atol=2e-5)
