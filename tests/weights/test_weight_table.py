"""The table of keys: complete for every size, one to one, and its layouts are those of torch."""

import numpy as np
import pytest
from flax import nnx

from chestx_jax.models.qwen2_vl import QWEN2_VL_2B, QWEN2_VL_7B, Qwen2VL
from chestx_jax.weights import WeightsError, table
from chestx_jax.weights.pretrained import flat_params, patch_shape
from tests.weights.tiny import TIED, UNTIED, golden_names

CONFIGS = {"tied": TIED, "untied": UNTIED, "qwen2_vl_2b": QWEN2_VL_2B, "qwen2_vl_7b": QWEN2_VL_7B}
PARAMETERS = {"qwen2_vl_2b": 2_208_985_600, "qwen2_vl_7b": 8_291_375_616}


def shapes_of(config):
    model = nnx.eval_shape(lambda: Qwen2VL(config, rngs=nnx.Rngs(0)))
    return {path: tuple(leaf.shape) for path, leaf in flat_params(model).items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_names_and_shapes_equal_those_of_transformers(name):
    config = CONFIGS[name]
    expected = table.expected_keys(shapes_of(config), patch_shape(config))
    assert {key: shape for key, (_, shape) in expected.items()} == golden_names(name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    assert sum(np.prod(shape) for shape in shapes_of(CONFIGS[name]).values()) == PARAMETERS[name]


def test_every_row_is_used():
    expected = table.expected_keys(shapes_of(UNTIED), patch_shape(UNTIED))
    layouts = {slot.layout for slot, _ in expected.values()}
    assert layouts == {table.SAME, table.TRANSPOSED}
    for key, _, _ in table.TABLE:
        assert any(table._pattern(key).fullmatch(found) for found in expected), key


def test_layouts_are_inverse_and_equal_torch_linear_and_conv():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 3 * 2 * 14 * 14))
    conv = rng.standard_normal((32, 3, 2, 14, 14))
    slot = table.Slot("vision.patch_embed.kernel", None, table.TRANSPOSED)
    kernel = table.from_file(slot, conv)
    # A convolution whose stride is its kernel: one dot product a patch.
    want = np.einsum("pctij,ectij->pe", x.reshape(7, 3, 2, 14, 14), conv)
    np.testing.assert_allclose(x @ kernel, want)
    np.testing.assert_array_equal(table.to_file(slot, kernel, conv.shape), conv)
    weight = rng.standard_normal((5, 1176))
    slot = table.Slot("text.layers.attn.q_proj.kernel", 1, table.TRANSPOSED)
    np.testing.assert_allclose(x @ table.from_file(slot, weight), x @ weight.T)
    assert table.to_file(slot, table.from_file(slot, weight), (5, 1176)).flags.c_contiguous


@pytest.mark.parametrize(
    ("key", "want"),
    [
        ("model.language_model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("model.visual.merger.ln_q.bias", "visual.merger.ln_q.bias"),
        ("model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_both_styles_of_keys(key, want):
    assert table.file_key(key) == want


def test_a_parameter_without_a_row_is_an_error():
    with pytest.raises(WeightsError, match=r"value_head\.kernel matches 0 rows"):
        table.keys_of("value_head.kernel", (64, 1))


def test_two_parameters_with_one_key_are_an_error(monkeypatch):
    monkeypatch.setattr(table, "TABLE", (("a.weight", "x", table.SAME), ("a.weight", "y", table.SAME)))
    with pytest.raises(WeightsError, match=r"a\.weight belongs to both x and y"):
        table.expected_keys({"x": (1,), "y": (1,)}, (3, 2, 14, 14))
