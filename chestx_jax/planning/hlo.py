"""Reading a compiled program: the text form of XLA's HLO, as far as counting work needs it.

XLA's own `cost_analysis` counts the body of a loop once, so a model of scanned layers looks 28 times too cheap.
Here every computation gets the number of times it runs.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping

import numpy as np

BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
    "c128": 16,
    "token": 0,
    "opaque": 0,
}


_INTEGERS = ("s32", "u32", "s64", "u64")


class HloError(Exception):
    """The compiled program has a form that this reader does not know; counting on would give wrong numbers."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array of an instruction's result."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        return int(np.prod(self.dims, dtype=np.int64))

    @property
    def bytes(self) -> int:
        if self.dtype not in BYTES:
            raise HloError(f"element type {self.dtype} has no known size")
        return self.elements * BYTES[self.dtype]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`name = shapes opcode(operands), attributes`; a tuple's result has several shapes."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str  # what follows the operands; for a parameter or constant, its value in front

    @property
    def is_counter(self) -> bool:
        """Whether the result is one integer."""
        return len(self.shapes) == 1 and not self.shapes[0].dims and self.shapes[0].dtype in _INTEGERS

    def attribute(self, name: str) -> str | None:
        """The value of `name=..`: up to the next blank or comma outside of braces."""
        found = re.search(rf"(?:^|[ ,]){name}=(\{{[^{{}}]*\}}|[^\s,]+)", self.attributes)
        return found.group(1) if found else None

    def called(self, name: str) -> str | None:
        """The computation that the attribute `name` points to."""
        value = self.attribute(name)
        return value.lstrip("%") if value else None


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order of the text; `root` gives the result."""

    name: str
    instructions: Mapping[str, Instruction]
    root: str

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        return self.instructions[instruction.operands[index]]


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: its computations, and the one that is run."""

    computations: Mapping[str, Computation]
    entry: str


_HEADER = re.compile(r"^(ENTRY )?%?([^\s(]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([^\s=]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\]")


def parse(text: str) -> Module:
    """The module that `compiled.as_text()` printed.

    Raises:
      HloError: no entry computation was found.
    """
    computations: dict[str, Computation] = {}
    entry, name, root = "", "", ""
    lines: dict[str, Instruction] = {}
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, root, lines = header.group(2), "", {}
            entry = name if header.group(1) else entry
        elif line == "}" and name:
            computations[name], name = Computation(name, lines, root), ""
        elif name and (match := _LINE.match(line)):
            instruction = _instruction(match.group(2), match.group(3))
            lines[instruction.name] = instruction
            root = instruction.name if match.group(1) else root
    if entry not in computations:
        raise HloError("the text holds no ENTRY computation")
    return Module(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    shape_end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    start = text.index("(", shape_end)
    end = _closing(text, start)
    inside = text[start + 1 : end - 1]
    opcode = text[shape_end:start].strip()
    shapes = tuple(
        Shape(dtype, tuple(int(n.lstrip("<=")) for n in dims.split(",") if n))
        for dtype, dims in _ARRAY.findall(text[:shape_end])
    )
    operands = tuple(re.findall(r"%([^\s,()]+)", inside))
    attributes = text[end:].lstrip(", ")
    if opcode in ("constant", "parameter"):
        attributes = f"{inside}, {attributes}"
    return Instruction(name, shapes, opcode, operands, attributes)


def _closing(text: str, start: int) -> int:
    """The index after the parenthesis that closes the one at `start`."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    raise HloError(f"unbalanced parentheses: {text[:80]}")


def executions(module: Module) -> dict[str, int]:
    """How often each computation runs in one run of the program; those that are never reached are left out.

    A loop runs as often as its condition's bound says, counted from 0: exact for scans; for a loop that may end
    earlier (decoding) the most it can run. Every branch of a conditional counts as taken.

    Raises:
      HloError: a loop whose bound cannot be read.
    """
    counts: dict[str, int] = {}

    def visit(name: str, times: int) -> None:
        counts[name] = counts.get(name, 0) + times
        for instruction in module.computations[name].instructions.values():
            for callee, repeats in _calls(module, instruction):
                visit(callee, times * repeats)

    visit(module.entry, 1)
    return counts


_CALLERS = {"fusion": "calls", "call": "to_apply", "async-start": "calls"}


def _calls(module: Module, instruction: Instruction) -> Iterator[tuple[str, int]]:
    if instruction.opcode == "while":
        body = instruction.called("body")
        yield str(body), trip_count(module, instruction)
    elif instruction.opcode == "conditional":
        branches = instruction.attribute("branch_computations")
        names = (
            re.findall(r"%([^\s,{}]+)", branches)
            if branches
            else [instruction.called(f"{which}_computation") for which in ("true", "false")]
        )
        yield from ((str(name), 1) for name in names)
    elif instruction.opcode in _CALLERS:
        yield str(instruction.called(_CALLERS[instruction.opcode])), 1


def trip_count(module: Module, loop: Instruction) -> int:
    """How often the body of a `while` runs, at most: its bound over its step (2 in collective matrix products).

    Raises:
      HloError: XLA did not note it, and the condition does not compare one counter with one integer.
    """
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if noted:
        return int(noted.group(1))
    condition = str(loop.called("condition"))
    bounds = set(_integers(module, condition))
    if len(bounds) != 1:
        raise HloError(
            f"loop {loop.name}: its condition has the bounds {sorted(bounds)}, expected exactly one"
        )
    return -(-bounds.pop() // _step(module, loop))


def _integers(module: Module, name: str) -> Iterator[int]:
    """The integers that a condition asks its counter to stay below."""
    computation = module.computations[name]
    for instruction in computation.instructions.values():
        if instruction.opcode == "compare" and instruction.attribute("direction") == "LT":
            for operand in (computation.operand(instruction, index) for index in (0, 1)):
                if operand.opcode == "constant" and operand.is_counter:
                    yield int(operand.attributes.split(",")[0])
        for callee, _ in _calls(module, instruction):
            yield from _integers(module, callee)


def _step(module: Module, loop: Instruction) -> int:
    """What one run of the body adds to the counter that the condition reads."""
    condition, body = (module.computations[str(loop.called(which))] for which in ("condition", "body"))
    read = [i for i in condition.instructions.values() if i.opcode == "get-tuple-element" and i.is_counter]
    if len(read) != 1:
        raise HloError(f"loop {loop.name}: its condition reads {len(read)} integers, expected one counter")
    place = int(read[0].attribute("index") or 0)
    sum_, inputs = _source(module, body, body.operand(body.instructions[body.root], place))
    steps = [int(i.attributes.split(",")[0]) for i in inputs if i.opcode == "constant"]
    if sum_.opcode != "add" or len(steps) != 1:
        raise HloError(
            f"loop {loop.name}: its counter grows by {sum_.opcode}, expected the sum with a constant"
        )
    return steps[0]


def _source(
    module: Module, computation: Computation, instruction: Instruction
) -> tuple[Instruction, list[Instruction]]:
    """What computes a value, and its operands, looking through copies and into fusions."""
    place = None
    while instruction.opcode in ("copy", "bitcast", "get-tuple-element"):
        place = instruction.attribute("index") if instruction.opcode == "get-tuple-element" else place
        instruction = computation.operand(instruction, 0)
    if instruction.opcode != "fusion":
        return instruction, [computation.instructions[name] for name in instruction.operands]
    inside = module.computations[str(instruction.called("calls"))]
    root = inside.instructions[inside.root]
    if root.opcode == "tuple":
        root = inside.operand(root, int(place or 0))
    source, inputs = _source(module, inside, root)
    outside = [
        computation.operand(instruction, int(i.attributes.split(",")[0])) if i.opcode == "parameter" else i
        for i in inputs
    ]
    return source, outside


_LISTED = re.compile(r"replica_groups=\{(\{[\d,]+\}(?:,\{[\d,]+\})*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
)


def replica_groups(instruction: Instruction) -> np.ndarray:
    """Which partitions work together, [groups, partitions in a group].

    Raises:
      HloError: the groups are written in a way that this reader does not know.
    """
    text = instruction.attributes
    if found := _LISTED.search(text):
        return np.asarray([_numbers(group) for group in re.findall(r"\{([\d,]+)\}", found.group(1))])
    if found := _IOTA.search(text):
        shape, dims, order = (_numbers(part or "") for part in found.groups())
        grid = np.arange(np.prod(dims)).reshape(dims)
        return (grid.transpose(order) if order else grid).reshape(shape)
    if found := _MESH.search(text):
        return _mesh_groups(*found.groups())
    raise HloError(f"{instruction.name}: cannot read its replica groups: {text[:120]}")


@functools.cache
def _mesh_groups(axes: str, dims: str | None, order: str | None, together: str) -> np.ndarray:
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
    chosen = re.findall(r"'(\w+)'", together)
    if re.search(r"'\w+':", together) or re.sub(r"'\w+'=\d+,?\s*", "", axes):
        raise HloError(f"cannot read the replica groups mesh[{axes}] {{{together}}}")
    names = list(sizes)
    grid = np.arange(np.prod(list(sizes.values())))
    if dims:  # the mesh's devices are not in their own order
        grid = grid.reshape(_numbers(dims))
        grid = grid.transpose(_numbers(order)) if order else grid
    last = [names.index(n) for n in names if n not in chosen] + [names.index(n) for n in chosen]
    in_mesh = grid.reshape(list(sizes.values())).transpose(last)
    return in_mesh.reshape(-1, int(np.prod([sizes[n] for n in chosen])))


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]
