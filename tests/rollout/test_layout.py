"""Weights on their way from where they train to where they write."""

import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from chestx_jax.data import Processor, Sample
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import MeshError, make_mesh, place
from chestx_jax.rollout import Engine, Sampling, writing_mesh
from chestx_jax.rollout.layout import _check_slices, move
from tests.rollout.test_engine import complete_all


def mesh_of(replica: int, fsdp: int, tensor: int, devices: int = 8) -> jax.sharding.Mesh:
    return make_mesh({"replica": replica, "fsdp": fsdp, "tensor": tensor}, jax.devices()[:devices])


def copy_on(model: Qwen2VL, mesh: jax.sharding.Mesh) -> Qwen2VL:
    copy = nnx.merge(*nnx.split(model))
    place(copy, mesh)
    return copy


@pytest.fixture(scope="module")
def on_one_device(processor: Processor, policy: Qwen2VL, samples: list[Sample]) -> dict[str, list[str]]:
    return complete_all(Engine(processor, mesh_of(1, 1, 1, 1), 10, Sampling()), policy, samples, 8)[0]


@pytest.mark.parametrize("axes", [(1, 8, 1), (1, 4, 2), (2, 2, 2)])
def test_any_training_mesh_writes_the_greedy_tokens_of_one_device(
    processor: Processor,
    policy: Qwen2VL,
    samples: list[Sample],
    on_one_device: dict[str, list[str]],
    axes: tuple[int, int, int],
) -> None:
    training = mesh_of(*axes)
    engine = Engine(processor, writing_mesh(training, tensor=2), 10, Sampling())
    assert dict(engine.mesh.shape) == {"replica": 4, "fsdp": 1, "tensor": 2}
    with jax.set_mesh(training):
        model = engine.take(copy_on(policy, training), training)
    assert complete_all(engine, model, samples, 8)[0] == on_one_device


def test_nothing_moves_where_training_lies_right_already(processor: Processor, policy: Qwen2VL) -> None:
    for axes in ((8, 1, 1), (4, 1, 2)):
        training = mesh_of(*axes)
        engine = Engine(processor, writing_mesh(training, axes[2]), 4, Sampling())
        assert engine.mesh is training and engine.take(policy, training) is policy


def test_products_move_in_the_compute_type_and_norms_as_they_are(policy: Qwen2VL) -> None:
    training = mesh_of(1, 4, 2)
    model = copy_on(policy, training)
    model.text.embed.dtype = jnp.bfloat16
    moved = move(model, writing_mesh(training, 4))
    kernel, norm = moved.text.layers.mlp.up_proj.kernel[...], moved.text.norm.scale[...]
    assert kernel.dtype == moved.text.embed.embedding[...].dtype == jnp.bfloat16 and norm.dtype == jnp.float32
    assert kernel.sharding.shard_shape(kernel.shape)[1:] == (64, 96 // 4)
    np.testing.assert_array_equal(
        np.asarray(kernel), np.asarray(policy.text.layers.mlp.up_proj.kernel[...].astype(jnp.bfloat16))
    )


def test_the_training_layout_is_kept_with_a_warning_only(caplog: pytest.LogCaptureFixture) -> None:
    training = mesh_of(1, 4, 2)
    with caplog.at_level(logging.WARNING):
        assert writing_mesh(training, 0) is training
    assert "rollout.tensor=0" in caplog.text and "fsdp=4" in caplog.text
    with pytest.raises(MeshError, match=r"rollout\.tensor=3 does not divide the 8 devices"):
        writing_mesh(training, 3)


def test_no_token_waits_for_the_network_between_slices() -> None:
    chips = np.array([SimpleNamespace(slice_index=number // 4) for number in range(8)])
    _check_slices(chips, 4)
    with pytest.raises(MeshError, match=r"rollout\.tensor=8: chips of several slices"):
        _check_slices(chips, 8)
