"""Compiles one program in a process of its own (`compiling.py` starts it: libtpu reads its environment once).

python -m chestx_jax.planning.worker JOB.json RESULT.json
"""

import dataclasses
import json
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from chestx_jax.planning.abstract import Program
from chestx_jax.planning.facts import Facts, Memory, summed
from chestx_jax.planning.hlo import parse
from chestx_jax.planning.programs import build
from chestx_jax.planning.topology import Topology, devices
from chestx_jax.planning.work import collectives, matmul_flops, opaque_kernels


def measure(program: Program, topology: Topology) -> Facts:
    """Lower and compile `program` for `topology`, and read the result."""
    began = time.process_time()
    problem, memory, text = "", None, ""
    with jax.set_mesh(program.mesh):
        platform = "cpu" if topology.chip is None else "tpu"
        lowered = program.trace().lower(lowering_platforms=(platform,))
        try:
            compiled = lowered.compile()
            memory, text = _memory(compiled.memory_analysis()), compiled.as_text()
        except jax.errors.JaxRuntimeError as error:
            problem = out_of_memory(str(error))
    seconds = time.process_time() - began
    module = parse(text) if memory else None
    return Facts(
        program=program.name,
        bucket=program.bucket,
        topology=topology.name,
        chips=topology.chips,
        mesh=dict(program.mesh.shape),
        problem=problem,
        memory=memory,
        parts=dict(program.parts),
        resident=dict(program.resident),
        offloaded=program.offloaded,
        model_flops=program.model_flops,
        compiled_flops=matmul_flops(module) if module else 0,
        traffic=summed(collectives(module, topology.chips // topology.slices)) if module else {},
        opaque=opaque_kernels(module) if module else {},
        tokens=program.tokens,
        hbm_bytes=program.hbm_bytes,
        runs=program.runs,
        compile_seconds=seconds,
        host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def out_of_memory(message: str) -> str:
    """One line about what does not fit, from XLA's error.

    Raises:
      RuntimeError: it is some other error.
    """
    if "RESOURCE_EXHAUSTED" not in message:
        raise RuntimeError(message)
    for form in _OUT_OF_MEMORY:
        if found := re.search(form, message):
            return f"needs {found.group(1)}iB of memory a chip, which has {found.group(2)}iB"
    return message.splitlines()[0]


# At the end of compiling, and before it where the temporaries alone are too much.
_OUT_OF_MEMORY = (
    r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT]) hbm",
    r"temporaries \(([\d.]+[KMGT])\) exceeds available HBM \(([\d.]+[KMGT])\)",
)


def _memory(analysis: Any) -> Memory:
    return Memory(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
    )


def main(job_path: Path, result_path: Path) -> None:
    """Read the job, compile, write the facts."""
    job = json.loads(job_path.read_text())
    topology = Topology(job["kind"], tuple(job["shape"]), job["slices"])
    config = ConfigDict(job["config"])
    program = build(job["program"], config, devices(topology), job["tokens"], job["patches"])
    facts = measure(program, topology)
    result_path.write_text(json.dumps(dataclasses.asdict(facts)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
