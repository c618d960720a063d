"""Measures one job in this process (`run.py` starts it).

python -m chestx_jax.benchmark.worker JOB.json RESULT.json
"""

import dataclasses
import importlib.metadata
import json
import sys
from pathlib import Path

from chestx_jax.benchmark.clock import Measured
from chestx_jax.benchmark.jobs import LOADS, OURS, Job

PACKAGES = {OURS: ("jax", "jaxlib", "flax"), "transformers": ("transformers", "torch")}


def measure(job: Job, directory: Path) -> Measured:
    """The imports are the job's: who measures JAX does not load torch, and the other way round."""
    if job.measure == "prepare":
        from chestx_jax.benchmark.inputs import prepare
        from chestx_jax.benchmark.sizes import SIZES

        load = LOADS.get(job.size, LOADS["S"])
        prepare(SIZES[job.size], directory, load.prompt_tokens)
        return Measured([], [])
    if job.measure == "peak":
        from chestx_jax.benchmark.peak import gemm_peak

        return gemm_peak()
    if job.measure == "start":
        from chestx_jax.benchmark.start import start

        return start(job, directory)
    if job.who == OURS and job.measure == "grpo":
        from chestx_jax.benchmark.ours_grpo import grpo

        return grpo(job, directory)
    if job.who == OURS:
        from chestx_jax.benchmark import ours

        if job.measure == "first":
            return ours.train(job, directory, warm_up=1)
        return {"train": ours.train, "generate": ours.generation}[job.measure](job, directory)
    import torch

    from chestx_jax.benchmark import theirs

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    return {"train": theirs.train, "generate": theirs.generation}[job.measure](job, directory)


def main(request_path: Path, result_path: Path) -> None:
    """Read the job, measure, write what was found."""
    request = json.loads(request_path.read_text())
    job = Job(**request["job"])
    found = measure(job, Path(request["directory"]))
    found.facts["versions"] = {name: importlib.metadata.version(name) for name in PACKAGES[job.who]}
    result_path.write_text(json.dumps(dataclasses.asdict(found)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
