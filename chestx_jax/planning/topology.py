"""Machines by name (`v5e:8x8`, `cpu:8`): their devices without having them, and their published peaks."""

import dataclasses
import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from chestx_jax.parallel.chips import Chip, chips

GIB = 2**30


class TopologyError(Exception):
    """A topology that is not known, or that cannot be compiled for here."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """`kind` is a chip of chips.toml, or cpu; `shape` is that of one slice."""

    kind: str
    shape: tuple[int, ...]
    slices: int

    @property
    def chips(self) -> int:
        return math.prod(self.shape) * self.slices

    @property
    def name(self) -> str:
        one = f"{self.kind}:{'x'.join(map(str, self.shape))}"
        return one if self.slices == 1 else f"{self.slices} x {one}"

    @property
    def chip(self) -> Chip | None:
        """None for cpu: a laptop's peaks are not published, so there are no bounds."""
        return None if self.kind == "cpu" else chips()[self.kind]


def parse_topology(text: str, slices: int) -> Topology:
    """Reads `kind:AxB[xC]`.

    Raises:
      TopologyError: the kind or the shape is not known.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    kinds = ("cpu", *chips())
    if not match or match.group(1) not in kinds:
        raise TopologyError(
            f"topology {text!r}: expected KIND:AxB, KIND one of {', '.join(kinds)}, as in v5e:8x8"
        )
    topology = Topology(match.group(1), tuple(map(int, match.group(2).split("x"))), slices)
    if topology.kind == "cpu" and (slices > 1 or len(topology.shape) > 1):
        raise TopologyError(f"topology {text!r}: cpu takes one number and one slice, as in cpu:8")
    return topology


def environment(topology: Topology) -> dict[str, str]:
    """The environment in which a process can compile for `topology`; it must be set before JAX starts.

    Raises:
      TopologyError: libtpu is not installed.
    """
    base = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if topology.chip is None:
        return {**base, "XLA_FLAGS": f"--xla_force_host_platform_device_count={topology.chips}"}
    if importlib.util.find_spec("libtpu") is None:
        raise TopologyError(f"compiling for {topology.name} needs libtpu: pip install 'chestx_jax[plan]'")
    return {
        **base,
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": topology.chip.accelerator,
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
    }


def devices(topology: Topology) -> list[jax.Device]:
    """The devices to lay a mesh over; within `environment`.

    Raises:
      TopologyError: libtpu has no slice of this shape.
    """
    if topology.chip is None:
        return jax.devices()
    shape = "x".join(map(str, topology.shape))
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{topology.kind}:{shape}", num_slices=topology.slices
        )
    except Exception as error:  # libtpu's own error types are not public
        raise TopologyError(f"topology {topology.name}: {error}") from error
    return list(described.devices)
