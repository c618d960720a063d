"""The device mesh, and how parameters and batches lie on it."""

from chestx_jax.parallel.mesh import AXES, BATCH_AXES, MeshError, batch_sharding, make_mesh, replicated
from chestx_jax.parallel.rules import RULES, init_sharded, partition_specs, place, shardings

__all__ = [
    "AXES",
    "BATCH_AXES",
    "RULES",
    "MeshError",
    "batch_sharding",
    "init_sharded",
    "make_mesh",
    "partition_specs",
    "place",
    "replicated",
    "shardings",
]
