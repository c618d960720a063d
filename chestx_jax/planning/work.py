"""What a compiled program does on each chip: floating-point operations of matrix products, bytes between chips."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from chestx_jax.planning.hlo import (
    Computation,
    HloError,
    Instruction,
    Module,
    Shape,
    executions,
    replica_groups,
)

EXCHANGES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
BETWEEN = "between slices"
KINDS = (*EXCHANGES, BETWEEN)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of exchange among one set of chips, over one run of the program.

    Attributes:
      kind: one of KINDS.
      times: how often it runs.
      result_bytes: what it leaves on a chip, all runs together.
      wire_bytes: what a chip must at least receive, all runs together: (n-1)/n of what is gathered or scattered,
        twice that for an all-reduce (Thakur et al. 2005, section 4).
      across_slices: whether some of it must cross from one slice to another.
    """

    kind: str
    times: int
    result_bytes: int
    wire_bytes: int
    across_slices: bool


def matmul_flops(module: Module) -> int:
    """Operations of all matrix products (2 a multiply-add) on one chip; loop bodies count as often as they run.

    Elementwise work, softmax and norms are left out, and so is what a Pallas kernel does: its inside is not HLO.
    """
    return sum(
        times * _flops(computation, instruction)
        for computation, instruction, times in _weighted(module)
        if instruction.opcode in ("dot", "convolution")
    )


def opaque_kernels(module: Module) -> dict[str, int]:
    """Kernels whose work cannot be counted (Pallas, library calls) and how often they run."""
    found: dict[str, int] = {}
    for _, instruction, times in _weighted(module):
        target = re.search(r'custom_call_target="([^"]+)"', instruction.attributes)
        if (
            instruction.opcode == "custom-call"
            and target
            and re.search(r"tpu_custom_call|matmul|cudnn", target[1])
        ):
            found[target[1]] = found.get(target[1], 0) + times
    return found


def collectives(module: Module, partitions_per_slice: int) -> list[Collective]:
    """Every exchange between chips, as one chip sees it.

    Args:
      partitions_per_slice: partitions are numbered slice by slice; groups that hold several slices' cross over.

    Raises:
      HloError: see `replica_groups`.
    """
    found = []
    for computation, instruction, times in _weighted(module):
        kind = _kind(computation, instruction)
        if kind is None:
            continue
        if kind == BETWEEN:
            arrived = instruction.shapes[0].bytes
            found.append(Collective(kind, times, times * arrived, times * arrived, across_slices=True))
            continue
        if kind == "collective-permute":
            pairs = np.asarray(re.findall(r"\{(\d+),(\d+)\}", instruction.attributes), int)
            groups, size = pairs, 2
        else:
            groups = replica_groups(instruction)
            size = groups.shape[1]
        if size == 1 or not len(groups):
            continue
        moved, left = _bytes(kind, computation, instruction, size)
        slices = groups // partitions_per_slice
        found.append(
            Collective(kind, times, times * left, times * moved, bool((slices != slices[:, :1]).any()))
        )
    return found


def _weighted(module: Module) -> Iterator[tuple[Computation, Instruction, int]]:
    for name, times in executions(module).items():
        computation = module.computations[name]
        for instruction in computation.instructions.values():
            yield computation, instruction, times


def _kind(computation: Computation, instruction: Instruction) -> str | None:
    kind = instruction.opcode.removesuffix("-start")
    # What crosses the network between slices is handed to the host, which sums it (MegaScale) and hands it back.
    if kind == "recv" and "_xla_megascale_transfer_type" in instruction.attributes:
        return BETWEEN
    if kind not in EXCHANGES:
        return None
    # XLA for TPU spreads one asynchronous collective over a chain of fusions, each with a copy of it; one begins.
    if "chain_id=" in instruction.attributes:
        begins = any('"AsyncCollectiveStart"' in i.attributes for i in computation.instructions.values())
        return kind if begins else None
    # ... and writes a reduce-scatter as an all-reduce and the slice that is kept, fused into one kernel.
    if kind == "all-reduce" and computation.name.startswith("all-reduce-scatter"):
        return "reduce-scatter"
    return kind


def _bytes(kind: str, computation: Computation, instruction: Instruction, size: int) -> tuple[int, int]:
    """(bytes that a chip must receive, bytes that it holds afterwards) of one run."""
    operands = sum(
        shape.bytes for name in instruction.operands for shape in computation.instructions[name].shapes
    )
    if kind == "all-gather":
        return operands * (size - 1), operands * size
    if kind == "reduce-scatter":
        return operands * (size - 1) // size, operands // size
    if kind == "all-reduce":
        return 2 * operands * (size - 1) // size, operands
    if kind == "all-to-all":
        return operands * (size - 1) // size, operands
    return operands, operands


def _flops(computation: Computation, instruction: Instruction) -> int:
    lhs, rhs = (computation.operand(instruction, index).shapes[0] for index in (0, 1))
    out = instruction.shapes[0]
    if instruction.opcode == "dot":
        dims = instruction.attribute("lhs_contracting_dims") or "{}"
        contracted = [lhs.dims[int(d)] for d in dims.strip("{}").split(",") if d]
        return 2 * out.elements * int(np.prod(contracted, dtype=np.int64))
    return _convolution_flops(instruction, lhs, rhs, out)


def _convolution_flops(instruction: Instruction, lhs: Shape, rhs: Shape, out: Shape) -> int:
    """XLA for TPU writes every matrix product as a convolution, batch dimensions as dilated windows: only the
    pairs of output and kernel position that meet an element of the input are work."""
    labels = re.fullmatch(r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels") or "")
    if not labels:
        raise HloError(f"{instruction.name}: convolution without dim_labels")
    of_lhs, of_rhs, of_out = (dict(zip(part, range(len(part)), strict=True)) for part in labels.groups())
    batch = lhs.dims[of_lhs["b"]] // int(instruction.attribute("batch_group_count") or 1)
    flops = 2 * batch * rhs.dims[of_rhs["i"]] * out.dims[of_out["f"]]
    window = _window(instruction)
    for index in range(len(out.dims) - 2):
        label = str(index)
        sizes = (lhs.dims[of_lhs[label]], rhs.dims[of_rhs[label]], out.dims[of_out[label]])
        flops *= _meetings(*sizes, **{field: values[index] for field, values in window.items()})
    return flops


def _window(instruction: Instruction) -> dict[str, list[int]]:
    text = instruction.attribute("window") or "{}"
    fields = dict(re.findall(r"(\w+)=([\d_x-]+)", text))
    count = len(fields.get("size", "").split("x")) if fields else 0

    def numbers(field: str, default: str) -> list[int]:
        values = fields.get(field, "x".join([default] * count)).split("x")
        return [int(value.split("_")[0]) for value in values if value]

    return {
        "stride": numbers("stride", "1"),
        "pad": numbers("pad", "0_0"),
        "base_dilation": numbers("lhs_dilate", "1"),
        "window_dilation": numbers("rhs_dilate", "1"),
    }


def _meetings(
    size: int, kernel: int, out: int, *, stride: int, pad: int, base_dilation: int, window_dilation: int
) -> int:
    place = np.arange(out)[:, None] * stride - pad + np.arange(kernel)[None, :] * window_dilation
    inside = (place % base_dilation == 0) & (place >= 0) & (place < size * base_dilation)
    return int(inside.sum())
