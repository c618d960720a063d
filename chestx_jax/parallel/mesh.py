"""The device mesh: three named axes, laid over whatever devices there are."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

REPLICA, FSDP, TENSOR = "replica", "fsdp", "tensor"
AXES = (REPLICA, FSDP, TENSOR)
BATCH_AXES = (REPLICA, FSDP)


class MeshError(Exception):
    """A mesh that does not fit the devices, or a parameter that the sharding rules do not place."""


def make_mesh(spec: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes replica, fsdp, tensor (in this order, all `AxisType.Auto`).

    Args:
      spec: the size of every axis, e.g. {"replica": 1, "fsdp": -1, "tensor": 1}. At most one size is -1: it
        takes the devices that the other axes leave.
      devices: what to lay the mesh over; all devices of all processes when None. (A topology's devices, to
        compile for machines that are not there.)

    When the devices belong to several slices, whole replicas are put on each slice, so that only the replica
    axis crosses the slow network.

    Raises:
      MeshError: for unknown, missing or senseless axes, and when the sizes do not multiply to the device
        count.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = _sizes(dict(spec), len(devices))
    slices = {device.slice_index for device in devices if hasattr(device, "slice_index")}
    if len(slices) > 1:
        return Mesh(_over_slices(shape, devices, len(slices)), AXES, axis_types=(AxisType.Auto,) * len(AXES))
    if devices[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = np.asarray(devices).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _sizes(spec: dict[str, int], count: int) -> tuple[int, ...]:
    if set(spec) != set(AXES):
        raise MeshError(f"a mesh needs exactly the axes {', '.join(AXES)}; got {spec}")
    bad = {axis: size for axis, size in spec.items() if size < 1 and size != -1}
    if bad:
        raise MeshError(f"a mesh axis has a size of at least 1, or -1 for what is left; got {bad}")
    free = [axis for axis in AXES if spec[axis] == -1]
    if len(free) > 1:
        raise MeshError(f"only one mesh axis can be -1; got {' and '.join(free)}")
    fixed = math.prod(size for size in spec.values() if size != -1)
    if count % fixed or (not free and fixed != count):
        raise MeshError(f"mesh {spec} does not fit {count} devices: the given sizes multiply to {fixed}")
    return tuple(count // fixed if spec[axis] == -1 else spec[axis] for axis in AXES)


def _over_slices(shape: tuple[int, ...], devices: list[jax.Device], slices: int) -> np.ndarray:
    replicas = shape[0]
    if replicas % slices:
        raise MeshError(
            f"replica={replicas} must be a multiple of the {slices} slices, which only replicas may span"
        )
    inner = (replicas // slices, *shape[1:])
    return mesh_utils.create_hybrid_device_mesh(
        inner, (slices, 1, 1), devices, allow_split_physical_axes=devices[0].platform == "tpu"
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How every array of a batch lies: its leading axis over replica and fsdp, whole over tensor."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
