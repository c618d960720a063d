"""The plan: does it fit, and what will it cost at least."""

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from chestx_jax.planning.compiling import compile_program
from chestx_jax.planning.facts import Facts, bounds, verdict
from chestx_jax.planning.report import markdown, summary
from chestx_jax.planning.search import candidates
from chestx_jax.planning.topology import Topology

log = logging.getLogger(__name__)


class DoesNotFit(Exception):
    """Some program needs more memory than a chip has; the message says which, and how much."""


def plan(config: ConfigDict, topology: Topology, programs: Sequence[str]) -> Iterator[Facts]:
    """The facts of every program of `config`, one for each bucket, as soon as each is compiled.

    Args:
      programs: names of `planning.programs.PROGRAMS`.

    Raises:
      TopologyError, CompileError: see `compile_program`.
    """
    for tokens, patches in config.data.buckets:
        for name in programs:
            yield compile_program(name, config, topology, tokens=tokens, patches=patches)


def search(
    config: ConfigDict, topology: Topology, program: str, tokens: int, patches: int
) -> tuple[list[Facts], dict[str, object]]:
    """Compiles every candidate (`search.candidates`) for one bucket's `program`, a training step.

    Returns:
      their facts, and the changes to the config with the lowest bound that fits.

    Raises:
      DoesNotFit: none does.
    """
    tried: list[tuple[Facts, dict[str, object]]] = []
    for changes in candidates(config, topology):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(changes)
        facts = compile_program(program, changed, topology, tokens=tokens, patches=patches)
        log.info("%s: %s", changes, verdict(facts, topology) or "fits")
        name = ", ".join(f"{key}={value}" for key, value in changes.items())
        tried.append((dataclasses.replace(facts, program=f"{facts.program}, {name}"), changes))
    found = [facts for facts, _ in tried]
    fitting = [(facts, changes) for facts, changes in tried if not verdict(facts, topology)]
    if not fitting:
        raise DoesNotFit(
            f"none of {len(tried)} ways fits {topology.name}:\n{summary(found, [topology] * len(found))}"
        )

    def seconds(pair: tuple[Facts, dict[str, object]]) -> float:
        least = bounds(pair[0], topology)
        return least.seconds if least else pair[0].compiled_flops

    return found, min(fitting, key=seconds)[1]


def write(facts: Sequence[Facts], topology: Topology, out: Path) -> None:
    """`plan.json` and `plan.md` under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    records = []
    for one in facts:
        least = bounds(one, topology)
        records.append(
            {
                **dataclasses.asdict(one),
                "flops_ratio": one.flops_ratio,
                "peak_bytes": one.peak,
                "bounds_seconds": dataclasses.asdict(least) if least else None,
                "does_not_fit": verdict(one, topology),
            }
        )
    (out / "plan.json").write_text(json.dumps(records, indent=2) + "\n")
    (out / "plan.md").write_text(markdown(facts, topology))


def check(facts: Sequence[Facts], topology: Topology) -> None:
    """Raises DoesNotFit when some program does not."""
    reasons = [f"{one.program}: {reason}" for one in facts if (reason := verdict(one, topology))]
    if reasons:
        raise DoesNotFit("does not fit " + topology.name + "\n" + "\n".join(reasons))
