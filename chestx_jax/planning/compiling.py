"""Compiling programs for machines that are not there, each in a process of its own."""

import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from ml_collections import ConfigDict

from chestx_jax.planning.facts import Facts, facts_from_dict
from chestx_jax.planning.topology import Topology, environment

log = logging.getLogger(__name__)


class CompileError(Exception):
    """The compiling process failed for another reason than memory; the message is its last lines."""


def compile_program(
    program: str, config: ConfigDict, topology: Topology, *, tokens: int, patches: int
) -> Facts:
    """The facts of one program of `config` (planning/programs.py) on `topology`, for samples of one bucket.

    Raises:
      TopologyError: libtpu is missing, or does not know the topology.
      CompileError: anything else but a program that does not fit, which is a fact.
    """
    job = {
        "program": program,
        "tokens": tokens,
        "patches": patches,
        "config": config.to_dict(),
        "kind": topology.kind,
        "shape": topology.shape,
        "slices": topology.slices,
    }
    with tempfile.TemporaryDirectory() as directory:
        job_path, result_path = Path(directory) / "job.json", Path(directory) / "result.json"
        job_path.write_text(json.dumps(job))
        done = subprocess.run(
            [sys.executable, "-m", "chestx_jax.planning.worker", str(job_path), str(result_path)],
            env=environment(topology),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise CompileError(_last_error(done.stderr))
        facts = facts_from_dict(json.loads(result_path.read_text()))
    log.info("%s for %s: compiled in %.0f CPU s", facts.program, topology.name, facts.compile_seconds)
    return facts


def _last_error(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line and not line[0].isspace() and "Error" in line.split(":")[0]]
    return errors[-1] if errors else "\n".join(lines[-5:])
