"""The optimizer's memory: where moments lie, and how precise they are, as configured."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from ml_collections import ConfigDict

from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import init_sharded, make_mesh
from chestx_jax.training import sft
from chestx_jax.training.guard import advance
from chestx_jax.training.loop import Preempted
from chestx_jax.training.optimizer import make_optimizer
from chestx_jax.training.setup import ARCHS
from chestx_jax.training.state import HOST, TrainState, init_state, split_model
from configs import common
from tests.training.test_sft import assert_same, final_params

SCHEDULE = optax.constant_schedule(1e-3)


def a_state(*, offload: bool, **changes: Any) -> tuple[optax.GradientTransformation, TrainState]:
    mesh = make_mesh({"replica": 1, "fsdp": 8, "tensor": 1})
    model = init_sharded(lambda: Qwen2VL(ARCHS["tiny"], rngs=nnx.Rngs(params=0)), mesh)
    tx = make_optimizer(common.optimizer(**changes), steps=10)
    _, params = split_model(model)
    return tx, init_state(params, tx, lambda path: True, mesh, offload=offload)


def kinds(state: TrainState) -> set[str]:
    """Where the moments lie: all leaves of the optimizer but its counters."""
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim}


def test_moments_in_the_hosts_memory_make_the_same_update() -> None:
    ends = []
    for offload in (False, True):
        tx, state = a_state(offload=offload)
        step = jax.jit(lambda state, grads, tx=tx: advance(state, tx, SCHEDULE, grads), donate_argnums=0)
        where = kinds(state)
        for seed in (1, 2):
            keys = jax.random.split(jax.random.key(seed), len(jax.tree.leaves(state.trainable)))
            tree = jax.tree.unflatten(jax.tree.structure(state.trainable), list(keys))
            grads = jax.tree.map(lambda key, p: jax.random.normal(key, p.shape), tree, state.trainable)
            state, _ = step(state, grads)
        assert kinds(state) == where and (where == {HOST}) == offload
        assert jax.tree.leaves(state.trainable)[0].sharding.memory_kind != HOST
        ends.append(jax.tree.map(np.asarray, (state.trainable, state.opt_state)))
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_a_run_may_start_without_offload_and_go_on_with_it(recipe: ConfigDict, tmp_path: Path) -> None:
    sft.run(recipe, tmp_path / "device")
    recipe.max_seconds = 1e-3
    with pytest.raises(Preempted):
        sft.run(recipe, tmp_path / "moved")
    recipe.update(max_seconds=0.0)
    recipe.optimizer.offload = True
    sft.run(recipe, tmp_path / "moved")
    assert_same(final_params(tmp_path / "moved"), final_params(tmp_path / "device"))


def test_the_first_moment_may_be_half_as_precise() -> None:
    _, state = a_state(offload=False, mu_dtype="bfloat16")
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    sizes = {
        dtype: sum(leaf.size for leaf in moments if leaf.dtype == dtype)
        for dtype in (jnp.bfloat16, jnp.float32)
    }
    assert sizes[jnp.bfloat16] == sizes[jnp.float32] > 0
    with pytest.raises(ValueError, match=r"config\.optimizer\.mu_dtype is 'int8'"):
        make_optimizer(common.optimizer(mu_dtype="int8"), steps=10)
