"""Products with kernels that fsdp cuts, and the loss on top of them, are those of one device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from chestx_jax.models import partitioning
from chestx_jax.models.partitioning import matmul, per_chip, scatter, scatter_stages
from chestx_jax.parallel import make_mesh
from chestx_jax.training.losses import chunked_cross_entropy

RNG = np.random.default_rng(0)
ROWS = jnp.asarray(RNG.normal(size=(16, 24)), jnp.float32)
KERNEL = jnp.asarray(RNG.normal(size=(24, 32)), jnp.float32)


def mesh_of(replica: int, fsdp: int, tensor: int) -> jax.sharding.Mesh:
    return make_mesh({"replica": replica, "fsdp": fsdp, "tensor": tensor})


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)])
@pytest.mark.parametrize(("cut", "units"), [(0, 32), (1, 24), (0, 1)])
def test_products_and_their_gradients(sizes: tuple[int, int, int], cut: int, units: int) -> None:
    def loss(rows: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sin(matmul(rows, kernel, cut, units)).sum()

    expected = jax.value_and_grad(loss, argnums=(0, 1))(ROWS, KERNEL)  # no mesh is set: a plain product
    mesh = mesh_of(*sizes)
    tensor = None if units == 1 else "tensor"
    spec = P(tensor, "fsdp") if cut else P("fsdp", tensor)
    rows = jax.device_put(ROWS, NamedSharding(mesh, P(("replica", "fsdp"))))
    kernel = jax.device_put(KERNEL, NamedSharding(mesh, spec))
    with jax.set_mesh(mesh):
        got = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(rows, kernel)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), got, expected)
    assert got[1][1].sharding.is_equivalent_to(NamedSharding(mesh, spec), 2)


def test_a_kernel_that_fsdp_does_not_divide_stays_whole() -> None:
    with jax.set_mesh(mesh_of(1, 8, 1)):
        jaxpr = str(jax.make_jaxpr(lambda x, w: matmul(x, w, 0, 1))(ROWS[:, :20], KERNEL[:20]))
    assert "shard_map" not in jaxpr


@pytest.mark.parametrize("stages", [(8,), (2, 4), (4, 2)])
@pytest.mark.parametrize("cut", [0, 1])
def test_stages_of_a_reduce_scatter_do_not_change_it(stages: tuple[int, ...], cut: int) -> None:
    mesh = mesh_of(1, 8, 1)
    whole = jnp.asarray(RNG.normal(size=(8, 16, 24)), jnp.float32)  # one summand a chip
    out = P(None, "fsdp") if cut else P("fsdp", None)
    with jax.set_mesh(mesh):
        run = jax.jit(per_chip(lambda x: scatter(x[0], cut, stages), P("fsdp"), out))
        np.testing.assert_allclose(run(whole), whole.sum(0), rtol=1e-5, atol=1e-5)


def test_planes_of_chips_are_scattered_in_two_stages() -> None:
    assert [scatter_stages(n) for n in (2, 8, 16, 32, 64, 128, 13)] == [
        (2,),
        (8,),
        (4, 4),
        (4, 8),
        (8, 8),
        (8, 16),
        (13,),
    ]


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2), (8, 1, 1), (1, 1, 8)])
def test_the_loss_and_its_gradients(sizes: tuple[int, int, int]) -> None:
    hidden = jnp.asarray(RNG.normal(size=(8, 7, 16)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(16, 32)), jnp.float32)
    tokens, mask = jnp.asarray(RNG.integers(0, 32, (8, 7))), jnp.asarray(RNG.random((8, 7)) < 0.5)

    def loss(kernel: jax.Array, hidden: jax.Array) -> jax.Array:
        return 0.5 * chunked_cross_entropy(kernel, hidden, tokens, mask, 4).loss

    expected = jax.value_and_grad(loss, argnums=(0, 1))(kernel, hidden)
    with jax.set_mesh(mesh_of(*sizes)):
        got = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(kernel, hidden)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), got, expected)


def test_no_policy_keeps_a_gathered_kernel() -> None:
    """The backward pass gathers again: between the passes only parts and rows stay."""
    with jax.set_mesh(mesh_of(1, 8, 1)):
        _, pull = jax.eval_shape(lambda x, w: jax.vjp(lambda x, w: matmul(x, w, 0, 1), x, w), ROWS, KERNEL)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) <= ROWS.size + KERNEL.size
    assert partitioning.FSDP == "fsdp"
