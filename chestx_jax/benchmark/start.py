"""How long a start takes: the import, and the first training step with and without JAX's compilation cache."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chestx_jax.benchmark.clock import Measured
from chestx_jax.benchmark.jobs import Job

IMPORT = """
import sys, time
began = time.process_time()
import chestx_jax
print(time.process_time() - began, "jax" in sys.modules)
"""


def start(job: Job, directory: Path) -> Measured:
    """As a user starts: compiling may use every core.

    `cpu` and `wall` are of a process that starts, loads the model, takes one training step and ends, with an empty
    cache; `facts` has the same with the cache that it leaves, and the import's.
    """
    imports, cold, cached = [], [], []
    for _ in range(job.repeats):
        out = subprocess.run(
            [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
        ).stdout
        imports.append(out.split())
        with tempfile.TemporaryDirectory() as cache:
            environment = {
                **{name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")},
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",  # as launch/program.py sets it
            }
            cold.append(_first_step(job, directory, environment))
            cached.append(_first_step(job, directory, environment))
    return Measured(
        [cpu for cpu, _ in cold],
        [wall for _, wall in cold],
        facts={
            "cached_cpu": [cpu for cpu, _ in cached],
            "cached_wall": [wall for _, wall in cached],
            "import_cpu": [float(seconds) for seconds, _ in imports],
            "imports_jax": any(flag == "True" for _, flag in imports),
        },
    )


def _first_step(job: Job, directory: Path, environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of a whole process."""
    only = dataclasses.replace(job, measure="first", repeats=0)
    with tempfile.TemporaryDirectory() as scratch:
        request, result = Path(scratch) / "job.json", Path(scratch) / "result.json"
        request.write_text(json.dumps({"job": dataclasses.asdict(only), "directory": str(directory)}))
        line = [sys.executable, "-m", "chestx_jax.benchmark.worker", str(request), str(result)]
        before, began = os.times(), time.perf_counter()
        subprocess.run(line, env=environment, check=True, capture_output=True)
        wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, wall
