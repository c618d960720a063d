"""What is read out of one compiled program, and the bounds that follow; plain numbers, written as JSON."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.planning.topology import GIB, Topology
from chestx_jax.planning.work import KINDS, Collective


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip. Donated arguments are reused as outputs (`aliased`) and count once."""

    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    code: int

    @property
    def peak(self) -> int:
        return self.arguments + self.outputs + self.temporaries + self.code - self.aliased


@dataclasses.dataclass(frozen=True)
class Facts:
    """One program on one topology. Everything is for one run of the program; `*_flops`, `traffic` and memory are
    one chip's, `model_flops` and `tokens` all chips' together.

    Attributes:
      bucket: the shape of the samples, in words.
      problem: why there is no compiled program ("" when there is): it does not fit.
      memory: None when it does not fit.
      parts: bytes of the arguments on a chip by what they are.
      resident: bytes that a run keeps on the chip beside the program.
      offloaded: bytes of the arguments that lie in the host's memory, for one chip.
      traffic: collective kind -> {"times", "result_bytes", "wire_bytes", "dcn_bytes"} (planning/work.py).
      opaque: kernels whose operations are not counted -> how often they run.
      hbm_bytes: what a chip must at least read and write.
      compile_seconds: CPU time of lowering and compiling; host_bytes: the compiling process's peak.
    """

    program: str
    bucket: str
    topology: str
    chips: int
    mesh: Mapping[str, int]
    problem: str
    memory: Memory | None
    parts: Mapping[str, int]
    resident: Mapping[str, int]
    offloaded: int
    model_flops: float
    compiled_flops: int
    traffic: Mapping[str, Mapping[str, int]]
    opaque: Mapping[str, int]
    tokens: int
    hbm_bytes: int
    runs: int
    compile_seconds: float
    host_bytes: int

    @property
    def flops_ratio(self) -> float:
        """Compiled over model operations; 1 is no work twice, no work on several chips alike. 0 where there is none."""
        return self.compiled_flops * self.chips / self.model_flops if self.model_flops else 0.0

    @property
    def peak(self) -> int | None:
        """Bytes on one chip while it runs, what lies beside it included; None when it does not compile."""
        return None if self.memory is None else self.memory.peak + sum(self.resident.values())

    def total(self, field: str) -> int:
        """Sum of one field of `traffic` over the kinds."""
        return sum(kind[field] for kind in self.traffic.values())


def facts_from_dict(fields: dict[str, Any]) -> Facts:
    """The inverse of `dataclasses.asdict`."""
    memory = fields["memory"]
    return Facts(**{**fields, "memory": memory and Memory(**memory)})


def summed(collectives: Sequence[Collective]) -> dict[str, dict[str, int]]:
    """Collectives by kind."""
    found: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        of_kind = [c for c in collectives if c.kind == kind]
        if of_kind:
            found[kind] = {
                "times": sum(c.times for c in of_kind),
                "result_bytes": sum(c.result_bytes for c in of_kind),
                "wire_bytes": sum(c.wire_bytes for c in of_kind),
                "dcn_bytes": sum(c.wire_bytes for c in of_kind if c.across_slices),
            }
    return found


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Seconds that one run takes at least, each as if it were all that happens; `seconds` is the largest."""

    arithmetic: float
    interconnect: float
    between_slices: float
    memory: float

    @property
    def seconds(self) -> float:
        return max(dataclasses.astuple(self))

    @property
    def what(self) -> str:
        """The resource that sets the bound."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0].replace("_", " ")


def bounds(facts: Facts, topology: Topology) -> Bounds | None:
    """None where there are no published peaks (cpu), or no program."""
    chip = topology.chip
    if chip is None or facts.memory is None:
        return None
    dcn = facts.total("dcn_bytes")
    return Bounds(
        arithmetic=facts.compiled_flops / chip.flops,
        interconnect=(facts.total("wire_bytes") - dcn) / chip.ici,
        between_slices=dcn / chip.dcn,
        memory=facts.hbm_bytes / chip.hbm,
    )


def verdict(facts: Facts, topology: Topology) -> str:
    """Why the program cannot run there; "" when it can."""
    if facts.problem or facts.peak is None:
        return facts.problem
    if topology.chip and facts.peak > topology.chip.hbm_gib * GIB:
        return f"needs {facts.peak / GIB:.1f} GiB a chip, which has {topology.chip.hbm_gib} GiB"
    return ""
