"""Facts as tables for people."""

from collections.abc import Sequence

from chestx_jax.planning.facts import Facts, bounds, verdict
from chestx_jax.planning.topology import GIB, Topology

CAVEATS = """\
What these numbers are. Memory, operations and bytes are read out of the very program that a run compiles; they are
exact for it, except that a loop which may end early (decoding) counts at its longest, and that kernels listed as
opaque count nothing. Model operations are the textbook's (models/qwen2_vl/flops.py). Wire bytes are what a chip must
at least receive; result bytes what it holds afterwards (a reduce-scatter receives much and keeps little).
Every time is a lower bound: one resource at its published peak, nothing else waiting. Tokens a second are therefore
at most, chip-hours at least. Not known without the machine: how well communication hides behind arithmetic, the share
of peak that real tiles reach, elementwise work, the way to the host's memory and back (offload), the host and its data,
compile time on the pod, restarts."""


def markdown(facts: Sequence[Facts], topology: Topology) -> str:
    """One line a program, what a whole run takes, one section a program, then what the numbers are."""
    table = summary(facts, [topology] * len(facts)).rstrip()
    whole = [
        line
        for bucket in dict.fromkeys(one.bucket for one in facts)
        if (line := _whole(facts, topology, bucket))
    ]
    sections = (_section(one, topology) for one in facts)
    return "\n\n".join([table, *whole, *sections, CAVEATS]) + "\n"


def whole_run(facts: Sequence[Facts], topology: Topology, bucket: str) -> float | None:
    """Seconds that these programs take at least, one after the other as often as a run calls them, when all samples are
    of one bucket's shape; None where there are no bounds."""
    found = [(one.runs, bounds(one, topology)) for one in facts if one.bucket == bucket]
    if any(least is None for _, least in found) or not any(runs for runs, _ in found):
        return None
    return sum(runs * least.seconds for runs, least in found if least is not None)


def _whole(facts: Sequence[Facts], topology: Topology, bucket: str) -> str:
    seconds = whole_run(facts, topology, bucket)
    if seconds is None:
        return ""
    hours = seconds / 3600
    return (
        f"The whole run, all samples in {bucket}: at least {_few(hours)} hours, {_few(hours * topology.chips)} "
        "chip-hours (these programs alone; host, data, validation and saving not counted)."
    )


def _section(facts: Facts, topology: Topology) -> str:
    mesh = ", ".join(f"{axis} {size}" for axis, size in facts.mesh.items())
    head = f"## {facts.program} on {facts.topology} ({facts.chips} chips: {mesh})"
    reason = verdict(facts, topology)
    lines = [head, "", f"**DOES NOT FIT**: {reason}" if reason else "**fits**", ""]
    return "\n".join(lines + _table(rows(facts, topology)))


def rows(facts: Facts, topology: Topology) -> list[tuple[str, str]]:
    """(what, value) of one program."""
    found = [(f"arguments: {name}", _gib(size)) for name, size in facts.parts.items()]
    if facts.offloaded:
        found.append(("in the host's memory, fetched and returned by every run", _gib(facts.offloaded)))
    if facts.memory:
        memory = facts.memory
        found += [
            ("arguments together", _gib(memory.arguments)),
            ("outputs not in place of arguments", _gib(memory.outputs - memory.aliased)),
            ("temporaries: activations, gradients, gathered weights", _gib(memory.temporaries)),
            ("program code", _gib(memory.code)),
        ]
        found += [(f"beside it: {name}", _gib(size)) for name, size in facts.resident.items()]
        found += [
            ("peak", _gib(facts.peak or 0) + (f" of {topology.chip.hbm_gib} GiB" if topology.chip else "")),
            ("model operations a chip", f"{facts.model_flops / facts.chips:.4g}"),
            (
                "compiled operations a chip",
                f"{facts.compiled_flops:.4g} ({facts.flops_ratio:.3f} of the model's)",
            ),
        ]
        found += [
            (kind, f"{t['times']:,} times, {_moved(t['result_bytes'], t['wire_bytes'])}")
            for kind, t in facts.traffic.items()
        ]
        found.append(("all collectives", _moved(facts.total("result_bytes"), facts.total("wire_bytes"))))
        found += [
            (f"opaque kernel {name}", f"{times} times, not counted") for name, times in facts.opaque.items()
        ]
    found += _times(facts, topology)
    found.append(
        (
            "compiling took",
            f"{facts.compile_seconds:.0f} CPU s, {facts.host_bytes / 1e9:.2f} GB of host memory",
        )
    )
    return found


def _times(facts: Facts, topology: Topology) -> list[tuple[str, str]]:
    least = bounds(facts, topology)
    if least is None:
        return []
    found = [
        ("at least, by arithmetic", f"{_few(least.arithmetic)} s"),
        ("at least, by the interconnect", f"{_few(least.interconnect)} s"),
        ("at least, by memory", f"{_few(least.memory)} s"),
    ]
    if topology.slices > 1:
        found.append(("at least, between slices", f"{_few(least.between_slices)} s"))
    if facts.tokens:
        found.append(
            ("tokens a second, at most", f"{facts.tokens / least.seconds:,.0f} (bound: {least.what})")
        )
    if facts.runs:
        hours = facts.runs * least.seconds * facts.chips / 3600
        found.append((f"chip-hours for {facts.runs:,} calls, at least", _few(hours)))
    return found


def summary(facts: Sequence[Facts], topologies: Sequence[Topology]) -> str:
    """One line a program: the table of the docs."""
    titles = ["program", "topology", "mesh", "peak GiB", "fits", "compiled / model", "GB kept", "GB received"]
    titles += ["at least s", "tokens/s at most", "compile CPU s", "host GB"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for one, topology in zip(facts, topologies, strict=True):
        least = bounds(one, topology)
        cells = [one.program, one.topology, " x ".join(map(str, one.mesh.values()))]
        if one.memory is None:
            cells += [one.problem, "no"] + [""] * 5
        else:
            cells += [
                _few((one.peak or 0) / GIB),
                "no" if verdict(one, topology) else "yes",
                f"{one.flops_ratio:.3f}" if one.model_flops else "",
                _few(one.total("result_bytes") / 1e9),
                _few(one.total("wire_bytes") / 1e9),
                f"{_few(least.seconds)} ({least.what})" if least else "",
                f"{one.tokens / least.seconds:,.0f}" if least and one.tokens else "",
            ]
        cells += [f"{one.compile_seconds:.0f}", f"{one.host_bytes / 1e9:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _gib(size: int) -> str:
    return f"{_few(size / GIB)} GiB"


def _moved(kept: int, received: int) -> str:
    return f"{_few(kept / 1e9)} GB kept, {_few(received / 1e9)} GB received"


def _few(value: float) -> str:
    """Three digits that say something; more before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(pairs: list[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in pairs)]
