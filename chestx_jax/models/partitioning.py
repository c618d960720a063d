"""The one place where activations are pinned to the mesh."""

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped

BATCH_AXES = ("replica", "fsdp")


def constrain_batch(x: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
    """Splits axis 0 over the batch axes of the mesh set with `jax.set_mesh`; no mesh, no change.

    Parameters are split over the same axes, so without this hint the compiler may gather activations
    instead of weights.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(name for name in BATCH_AXES if name in mesh.axis_names)
    if not axes:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *(None,) * (x.ndim - 1)))
