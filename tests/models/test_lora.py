"""Adapters: nothing at the start, trainable alone, gone after the merge."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from chestx_jax.models.lora import LANGUAGE_LINEARS, LoRAError, LoRAParam, add_lora, merge_lora
from tests.models import cases

CASE = cases.CASES[0]
EVERY_LINEAR = r".*(_proj|qkv|proj|fc1|fc2)"


def paths(model, kind) -> set[str]:
    return {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, kind))}


def adapted(rank: int = 4, alpha: float = 8.0, targets: str = EVERY_LINEAR, noise: float = 0.0):
    model = cases.build(CASE.config)
    add_lora(model, rank, alpha, targets, nnx.Rngs(1))
    for path, param in nnx.to_flat_state(nnx.state(model, LoRAParam)):
        if noise and path[-1] == "lora_b":
            param.set_value(noise * jax.random.normal(jax.random.key(len(str(path))), param.shape))
    return model


def test_a_new_adapter_changes_nothing():
    batch = cases.make_batch(CASE)
    np.testing.assert_array_equal(cases.run(adapted(), batch), cases.run(cases.build(CASE.config), batch))


def test_shapes_and_paths():
    model = adapted(rank=3, targets=LANGUAGE_LINEARS)
    config = CASE.config
    found = paths(model, LoRAParam)
    assert len(found) == 2 * 7
    q_proj = model.text.layers.attn.q_proj
    assert "text.layers.attn.q_proj.lora_a" in found
    assert q_proj.lora_a.shape == (config.num_layers, config.hidden_size, 3)
    assert q_proj.lora_b.shape == (config.num_layers, 3, config.hidden_size)
    assert not any(path.startswith("vision") for path in found)


def test_gradients_reach_the_adapters_alone():
    model, batch = adapted(noise=0.1), cases.make_batch(CASE)
    graph, adapters, rest = nnx.split(model, LoRAParam, ...)

    def objective(adapters):
        return cases.loss(cases.run(nnx.merge(graph, adapters, rest), batch), batch)

    gradients = nnx.to_flat_state(jax.jit(jax.grad(objective))(adapters))
    assert {".".join(map(str, path)) for path, _ in gradients} == paths(model, LoRAParam)
    assert all(np.abs(g[...]).max() > 0 for _, g in gradients)


def test_merged_model_is_plain_and_the_same():
    batch = cases.make_batch(CASE)
    model, plain = adapted(noise=0.1), cases.build(CASE.config)
    before = np.asarray(cases.run(model, batch))
    assert np.abs(before - cases.run(plain, batch)).max() > 0.1
    merge_lora(model)
    np.testing.assert_allclose(cases.run(model, batch), before, atol=2e-5)
    assert not paths(model, LoRAParam)
    assert jax.tree.structure(model) == jax.tree.structure(plain)


@pytest.mark.parametrize(
    ("rank", "targets", "message"),
    [(0, ".*q_proj", "rank"), (2, "q_proj", "matches none"), (2, ".*q_proj", "already")],
)
def test_impossible_adapters_are_errors(rank, targets, message):
    model = cases.build(CASE.config)
    if message == "already":
        add_lora(model, rank, 1.0, targets, nnx.Rngs(0))
    with pytest.raises(LoRAError, match=re.escape(message)):
        add_lora(model, rank, 1.0, targets, nnx.Rngs(0))
