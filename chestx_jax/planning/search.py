"""Which ways of running a training step are worth compiling."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from chestx_jax.models.qwen2_vl.layers import POLICIES
from chestx_jax.planning.abstract import model_sizes
from chestx_jax.planning.topology import Topology

# From the one that keeps most (and redoes least) to the one that keeps least.
REMAT = ("mlp", "minimal", "full")
ACCUMULATION = (1, 2, 4)
TENSOR = (1, 2, 4)

assert set(REMAT) <= set(POLICIES)


def candidates(config: ConfigDict, topology: Topology) -> Iterator[dict[str, object]]:
    """Changes to the config: remat policy, accumulation and mesh, those that divide batch, heads and chips.

    Slices are replicas, since only those may cross the slow network; within a slice the parameters are cut over all
    chips, which is the least memory, times `tensor`.
    """
    sizes = model_sizes(config.model)
    for tensor in TENSOR:
        shards = topology.chips // tensor
        for accumulation in ACCUMULATION:
            if topology.chips % tensor or sizes.num_kv_heads % tensor:
                continue
            if config.batch_size % (shards * accumulation):
                continue
            for remat in REMAT:
                yield {
                    "model.remat": remat,
                    "accumulation": accumulation,
                    "mesh.replica": topology.slices,
                    "mesh.fsdp": -1,
                    "mesh.tensor": tensor,
                }
