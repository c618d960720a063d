"""The device mesh, and how parameters and batches lie on it."""

from chestx_jax.parallel.mesh import AXES, BATCH_AXES, MeshError, batch_sharding, make_mesh, replicated
from chestx_jax.parallel.processes import ClusterError, agree, barrier, by_first, gather, is_first
from chestx_jax.parallel.rows import batch_share, gather_shares, own_rows, put_rows
from chestx_jax.parallel.rules import RULES, init_sharded, partition_specs, place, shardings

__all__ = [
    "AXES",
    "BATCH_AXES",
    "RULES",
    "ClusterError",
    "MeshError",
    "agree",
    "barrier",
    "batch_sharding",
    "batch_share",
    "by_first",
    "gather",
    "gather_shares",
    "init_sharded",
    "is_first",
    "make_mesh",
    "own_rows",
    "partition_specs",
    "place",
    "put_rows",
    "replicated",
    "shardings",
]
