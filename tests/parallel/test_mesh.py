"""The mesh: sizes, the free axis, and errors that say what does not fit."""

import jax
import pytest
from jax.sharding import AxisType

from chestx_jax.parallel import MeshError, batch_sharding, make_mesh


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ((1, -1, 1), (1, 8, 1)),
        ((2, -1, 2), (2, 2, 2)),
        ((-1, 2, 1), (4, 2, 1)),
        ((1, 4, 2), (1, 4, 2)),
        ((8, 1, 1), (8, 1, 1)),
    ],
)
def test_sizes(spec, shape):
    mesh = make_mesh(dict(zip(("replica", "fsdp", "tensor"), spec, strict=True)))
    assert mesh.axis_names == ("replica", "fsdp", "tensor")
    assert mesh.devices.shape == shape
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert len(set(mesh.devices.flat)) == 8


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"replica": 1, "fsdp": 3, "tensor": -1}, "8 devices"),
        ({"replica": 1, "fsdp": 4, "tensor": 1}, "8 devices: the given sizes multiply to 4"),
        ({"replica": 4, "fsdp": 4, "tensor": 1}, "multiply to 16"),
        ({"replica": 1, "fsdp": -1, "tensor": -1}, "only one mesh axis can be -1; got fsdp and tensor"),
        ({"replica": 1, "fsdp": 8}, "exactly the axes"),
        ({"replica": 1, "fsdp": 8, "tensor": 1, "data": 1}, "exactly the axes"),
        ({"replica": 0, "fsdp": -1, "tensor": 1}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_an_error(spec, message):
    with pytest.raises(MeshError, match=message):
        make_mesh(spec)


def test_a_subset_of_the_devices():
    mesh = make_mesh({"replica": 1, "fsdp": -1, "tensor": 1}, jax.devices()[:2])
    assert mesh.devices.shape == (1, 2, 1)


def test_slices_are_spanned_by_replicas_only():
    class Device:
        platform = "tpu"
        process_index = 0

        def __init__(self, number: int):
            self.id, self.slice_index = number, number // 4

    devices = [Device(i) for i in range(8)]
    with pytest.raises(MeshError, match="multiple of the 2 slices"):
        make_mesh({"replica": 1, "fsdp": 8, "tensor": 1}, devices)


def test_batches_are_cut_by_replica_and_fsdp():
    mesh = make_mesh({"replica": 2, "fsdp": 2, "tensor": 2})
    assert batch_sharding(mesh).shard_shape((8, 3)) == (2, 3)
