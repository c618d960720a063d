"""Runs a plan of jobs, each in a process of its own, and keeps what each found."""

import dataclasses
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from chestx_jax.benchmark.clock import Measured
from chestx_jax.benchmark.jobs import OURS, SAMPLES, TRANSFORMERS, TRL, TUNIX, Job

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
WORKERS = {TRL: "chestx_jax.benchmark.trl_worker", TUNIX: "chestx_jax.benchmark.tunix_worker"}
ALIKE = {  # what both sides run under: one thread, large pages for what is allocated anew in every step
    "NPROC": "1",  # the size of XLA's pool of threads
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


class BenchmarkError(Exception):
    """A job whose process failed; the message is the job's name and the last lines it wrote."""


def run(jobs: Sequence[Job], out: Path, pythons: dict[str, Path]) -> dict[Job, Measured]:
    """What every job found; those that `out` already has are not run again.

    Args:
      out: jobs/ (a file a job) and models/ (a directory a size) go here.
      pythons: who -> the interpreter that has their program.

    Raises:
      BenchmarkError: a job failed. What was done before it is kept.
    """
    (out / "jobs").mkdir(parents=True, exist_ok=True)
    found = {}
    for number, job in enumerate(jobs, start=1):
        directory = (out / "models" / job.size).absolute()
        if not (directory / SAMPLES).exists():  # written last
            _process(Job("prepare", OURS, job.size), directory, out, Path(sys.executable))
        path = out / "jobs" / f"{job.name}.json"
        if not path.exists():
            log.info("%d of %d: %s", number, len(jobs), job.name)
            found[job] = _process(job, directory, out, pythons.get(job.who, Path(sys.executable)))
            _write(path, json.dumps(dataclasses.asdict(found[job])))
        else:
            found[job] = Measured(**json.loads(path.read_text()))
    return found


def _process(job: Job, directory: Path, out: Path, python: Path) -> Measured:
    request, result = out / "request.json", out / "result.json"
    request.write_text(json.dumps({"job": dataclasses.asdict(job), "directory": str(directory)}))
    result.unlink(missing_ok=True)
    module = WORKERS.get(job.who, "chestx_jax.benchmark.worker")
    environment = {**os.environ, **ALIKE, "PYTHONPATH": str(ROOT)}
    line = [str(python), "-m", module, str(request), str(result)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    if done.returncode or not result.exists():
        raise BenchmarkError(f"{job.name}: " + "\n".join(done.stderr.splitlines()[-8:]))
    found = Measured(**json.loads(result.read_text()))
    request.unlink()
    result.unlink()
    return found


def installed(environments: Path) -> dict[str, Path]:
    """Who there is to compare with, and the interpreter that has them.

    Args:
      environments: what benchmarks/other_environments.sh made; need not exist.
    """
    found = {}
    if importlib.util.find_spec("torch"):
        found[TRANSFORMERS] = Path(sys.executable)
    for who in WORKERS:
        python = environments / who / "bin" / "python"
        if python.exists():
            found[who] = python.absolute()
    return found


def _write(path: Path, text: str) -> None:
    """As a whole or not at all: a run may be killed at any moment."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)
