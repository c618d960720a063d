"""Every parameter has exactly one rule, and lies where the rule says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from chestx_jax.models.lora import add_lora
from chestx_jax.models.qwen2_vl import QWEN2_VL_2B, QWEN2_VL_7B, TINY, Qwen2VL
from chestx_jax.models.qwen2_vl.layers import Linear
from chestx_jax.parallel import MeshError, init_sharded, make_mesh, partition_specs, place, rules, shardings
from tests.weights.tiny import TIED, UNTIED

HEADS = {"num_heads": 4, "num_kv_heads": 2}


def abstract(config, lora: str = "") -> Qwen2VL:
    def make():
        model = Qwen2VL(config, rngs=nnx.Rngs(0))
        if lora:
            add_lora(model, 4, 8.0, lora, nnx.Rngs(1))
        return model

    return nnx.eval_shape(make)


def flat(tree) -> dict:
    return {".".join(path): leaf for path, leaf in traverse_util.flatten_dict(tree).items()}


def mesh_of(replica, fsdp, tensor):
    return make_mesh({"replica": replica, "fsdp": fsdp, "tensor": tensor})


@pytest.mark.parametrize("config", [TINY, TIED, UNTIED, QWEN2_VL_2B, QWEN2_VL_7B])
@pytest.mark.parametrize("lora", ["", ".*"])
def test_every_parameter_is_placed_and_no_layer_axis_is_cut(config, lora):
    model = abstract(config, lora)
    placed = flat(shardings(model, mesh_of(1, 4, 2)))
    params = flat(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert placed.keys() == params.keys()
    assert any("lora_a" in path for path in params) == bool(lora)
    for path, sharding in placed.items():
        shard = sharding.shard_shape(params[path].shape)
        if "layers" in path or "blocks" in path:
            assert shard[0] == params[path].shape[0], path


@pytest.mark.parametrize("config", [QWEN2_VL_2B, QWEN2_VL_7B])
def test_nothing_large_stays_whole_on_real_models(config):
    mesh = mesh_of(1, 8, 1)
    model = abstract(config)
    params = flat(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    whole = [p for p, s in flat(shardings(model, mesh)).items() if s.is_fully_replicated]
    assert max(np.prod(params[path].shape) for path in whole) < 1_000_000


def test_fsdp_8_cuts_the_demo_model():
    placed = flat(shardings(abstract(TINY), mesh_of(1, 8, 1)))
    assert placed["text.layers.attn.q_proj.kernel"].shard_shape((3, 128, 128)) == (3, 16, 128)
    assert placed["text.embed.embedding"].shard_shape((2048, 128)) == (2048, 16)


def test_an_axis_that_does_not_divide_is_left_off_and_listed():
    shapes = {"text.embed.embedding": (1503, 128), "text.norm.scale": (128,)}
    specs, left_off = partition_specs(shapes, {"replica": 1, "fsdp": 2, "tensor": 4}, HEADS)
    assert tuple(specs["text.embed.embedding"]) == (None, "fsdp")
    assert left_off == ("text.embed.embedding dimension 0 (1503 elements) is not cut by tensor=4",)


def test_heads_are_not_cut_through():
    """The 2B model's two key/value heads, 256 columns, would divide by 4, but not between heads."""
    placed = flat(shardings(abstract(QWEN2_VL_2B), mesh_of(1, 2, 4)))
    assert tuple(placed["text.layers.attn.k_proj.kernel"].spec) == (None, "fsdp", None)
    assert tuple(placed["text.layers.attn.v_proj.bias"].spec) == (None, None)
    assert tuple(placed["text.layers.attn.q_proj.kernel"].spec) == (None, "fsdp", "tensor")


def test_unmatched_and_misfitting_parameters_are_named_all_at_once():
    shapes = {
        "text.layers.attn.q_proj.gain": (3, 4),
        "text.norm.scale": (3, 4),
        "value_head.kernel": (4, 1),
        "text.layers.attn.q_proj.bias": (3, 4),
    }
    with pytest.raises(MeshError) as caught:
        partition_specs(shapes, {"replica": 1, "fsdp": 1, "tensor": 1}, HEADS)
    message = str(caught.value)
    assert "text.layers.attn.q_proj.gain (3, 4): needs exactly one sharding rule, matches none" in message
    assert "value_head.kernel" in message
    assert r"text.norm.scale (3, 4): rule text\.norm\.scale is for 1 dimensions" in message
    assert "q_proj.bias" not in message


def test_a_second_matching_rule_is_an_error(monkeypatch):
    monkeypatch.setattr(rules, "RULES", (*rules.RULES, (r"text\.norm\..*", rules.P(None))))
    with pytest.raises(MeshError, match=r"matches text\\.norm\\.scale and text\\.norm\\.\.\*"):
        partition_specs({"text.norm.scale": (4,)}, {"replica": 1, "fsdp": 1, "tensor": 1}, HEADS)


def test_every_layer_knows_which_dimension_fsdp_cuts():
    """`Linear.cut` steers gathering by hand; the table says where the parts lie. They must agree."""
    model = abstract(UNTIED)
    for path, node in nnx.iter_graph(model):
        if isinstance(node, Linear):
            name = ".".join(map(str, (*path, "kernel")))
            (spec,) = (spec for pattern, spec in rules.RULES if re.fullmatch(pattern, name))
            assert tuple(spec)[-2:].index("fsdp") == node.cut, name
            heads = [getattr(UNTIED, field) for pattern, field in rules.HEADS if re.fullmatch(pattern, name)]
            cut_by_tensor = "tensor" in tuple(spec)
            assert (
                node.units == (heads or [node.kernel.shape[-2:][1 - node.cut] if cut_by_tensor else 1])[0]
            ), name


@pytest.fixture(scope="module")
def plain() -> Qwen2VL:
    return Qwen2VL(UNTIED, rngs=nnx.Rngs(3))


def test_sharded_init_equals_plain_init(plain):
    mesh = mesh_of(2, 2, 2)
    model = init_sharded(lambda: Qwen2VL(UNTIED, rngs=nnx.Rngs(3)), mesh)
    got, want = (flat(nnx.to_pure_dict(nnx.state(m, nnx.Param))) for m in (model, plain))
    placed = flat(shardings(model, mesh))
    for path, value in got.items():
        assert value.sharding.is_equivalent_to(placed[path], value.ndim), path
        # Fused with the scaling, the last bit may differ from an operation at a time.
        np.testing.assert_allclose(value, want[path], rtol=1e-6, atol=1e-9, err_msg=path)


def test_place_moves_adapters_that_were_added_later(plain):
    mesh = mesh_of(1, 4, 2)
    model = nnx.clone(plain)
    place(model, mesh)
    add_lora(model, 2, 4.0, r"text\.layers\..*_proj", nnx.Rngs(1))
    place(model, mesh)
    assert model.text.layers.attn.q_proj.lora_b[...].sharding.shard_shape((3, 2, 64)) == (3, 2, 32)
    assert model.text.layers.attn.q_proj.kernel[...].sharding.shard_shape((3, 64, 64)) == (3, 16, 32)
    np.testing.assert_array_equal(
        model.text.layers.attn.q_proj.kernel[...], plain.text.layers.attn.q_proj.kernel[...]
    )


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 2, 4)])
def test_logits_do_not_depend_on_the_mesh(plain, sizes):
    tokens = jnp.tile(jnp.arange(8, 24), (8, 1))
    batch = {
        "tokens": tokens,
        "positions": jnp.tile(jnp.arange(16), (8, 3, 1)),
        "segments": jnp.ones_like(tokens),
        "patches": jnp.zeros((8, 0, 1176)),
        "patch_hw": jnp.zeros((8, 0, 2), jnp.int32),
        "patch_segments": jnp.zeros((8, 0), jnp.int32),
        "image_index": jnp.full_like(tokens, -1),
    }
    forward = nnx.jit(lambda model, batch: model(batch))
    mesh = mesh_of(*sizes)
    model = nnx.clone(plain)
    place(model, mesh)
    with jax.set_mesh(mesh):
        got = forward(model, batch)
    np.testing.assert_allclose(got, forward(plain, batch), atol=1e-5)
