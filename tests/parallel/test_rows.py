"""Which rows a process reads, and how rows become one array: here with processes that are only said to be there."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest

from chestx_jax.parallel import MeshError, batch_share, gather_shares, make_mesh, own_rows, put_rows
from chestx_jax.parallel.distributed import environment


@dataclass(frozen=True)
class Device:
    process_index: int


def share(monkeypatch: pytest.MonkeyPatch, processes: list[int], tensor: int, me: int) -> tuple[int, int]:
    """The share of process `me` on a mesh whose devices belong to these processes, in order."""
    devices = np.array([Device(process) for process in processes]).reshape(1, -1, tensor)
    mesh = SimpleNamespace(devices=devices, shape={"tensor": tensor})
    monkeypatch.setattr(jax, "process_index", lambda: me)
    return batch_share(cast(Any, mesh))


@pytest.mark.parametrize(
    ("processes", "tensor", "shares"),
    [
        ([0, 0, 1, 1], 1, [(0, 2), (1, 2)]),
        ([0, 1, 0, 1], 1, [(0, 2), (1, 2)]),  # as a TPU slice lays its hosts
        ([0, 0, 1, 1], 2, [(0, 2), (1, 2)]),
        ([0, 0, 1, 1], 4, [(0, 1), (0, 1)]),  # tensor spans both: they read the same rows
        ([1, 0, 3, 2], 2, [(0, 2), (0, 2), (1, 2), (1, 2)]),
    ],
)
def test_a_process_reads_what_its_devices_hold(
    monkeypatch: pytest.MonkeyPatch, processes: list[int], tensor: int, shares: list[tuple[int, int]]
) -> None:
    assert [share(monkeypatch, processes, tensor, me) for me in range(len(shares))] == shares


def test_tensor_that_cuts_across_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MeshError, match="cuts across processes"):
        share(monkeypatch, [0, 0, 0, 1, 1, 1], 2, 0)


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2), (1, 1, 8)])
def test_rows_come_back_as_they_went(shape: tuple[int, int, int]) -> None:
    mesh = make_mesh(dict(zip(("replica", "fsdp", "tensor"), shape, strict=True)))
    rows = {"a": np.arange(24.0).reshape(8, 3), "b": np.arange(8)}
    placed = put_rows(mesh, rows)
    moved = {
        "a": jax.device_put(placed["a"], jax.devices()[3]),
        "b": placed["b"],
    }  # wherever a program left it
    back = own_rows(mesh, moved)
    for name, value in rows.items():
        np.testing.assert_array_equal(back[name], value)
    assert gather_shares(mesh, "mine") == ["mine"]


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, ""),
        ({**SLURM, "SLURM_NTASKS": "16"}, "slurm"),
        ({**SLURM, "SLURM_NTASKS": "1"}, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"}, ""),  # in salloc, without srun
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ""),  # a pod by itself
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}, "kubernetes"),
    ],
)
def test_which_cluster_started_this_process(variables: dict[str, str], found: str) -> None:
    assert environment(variables) == found
