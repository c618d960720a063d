"""Rows of a batch: each process reads its own, and together they are one array on the mesh."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from chestx_jax.parallel.mesh import TENSOR, MeshError, batch_sharding
from chestx_jax.parallel.processes import gather

Value = TypeVar("Value")


def batch_share(mesh: Mesh) -> tuple[int, int]:
    """Which share of every batch this process reads, and how many there are: (index, count).

    A share is what the devices of a process hold. Processes whose devices hold the same rows, because `tensor` spans
    them, read the same share.

    Raises:
      MeshError: the processes' devices hold shares that overlap, or differ in size.
    """
    places: dict[int, set[int]] = {}
    for place, devices in enumerate(mesh.devices.reshape(-1, mesh.shape[TENSOR])):
        for device in devices:
            places.setdefault(device.process_index, set()).add(place)
    shares = sorted({frozenset(held) for held in places.values()}, key=min)
    rows = mesh.devices.size // mesh.shape[TENSOR]
    if sum(map(len, shares)) != rows or len({len(share) for share in shares}) > 1:
        raise MeshError(
            f"mesh {dict(mesh.shape)}: the devices of a process must hold a part of the batch of their own, but "
            "tensor cuts across processes; give tensor a size that divides the devices of a process, or is a "
            "multiple of them"
        )
    return shares.index(frozenset(places[jax.process_index()])), len(shares)


def gather_shares(mesh: Mesh, value: Value) -> list[Value]:
    """What the processes found of each share of a batch, in the order of the shares; each share once."""
    index, count = batch_share(mesh)
    found = dict(gather((index, value)))
    return [found[share] for share in range(count)]


def put_rows(mesh: Mesh, rows: Any) -> Any:
    """A tree of this process's rows [B / shares, ...] as global arrays [B, ...] on the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), rows)


def own_rows(mesh: Mesh, arrays: Any) -> Any:
    """The inverse of `put_rows`: this process's rows of a tree of global arrays, on the host. Waits for them."""
    laid = jax.device_put(arrays, batch_sharding(mesh))  # nothing moves where they lie so already
    return jax.tree.map(_local, laid)


def _local(array: jax.Array) -> np.ndarray:
    parts: Mapping[int, jax.Shard] = {shard.index[0].start or 0: shard for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start].data) for start in sorted(parts)])
