"""What training, generation and GRPO steps cost on this machine, beside transformers, TRL and Tunix.

    python -m launch.benchmark --sizes=S,M --out=DIR
    python -m launch.benchmark --sizes=S --only=train,generate --out=DIR

Writes under --out: bench.json, bench.md, growth.png; jobs/ with what is measured already (the same line goes on where
it was stopped; another directory measures anew) and models/. One thread, float32. Whoever is not installed is left
out: transformers comes with the parity extra, benchmarks/other_environments.sh installs TRL and Tunix.
"""

import json
from pathlib import Path

from absl import flags

from launch.errors import EXPECTED
from launch.program import start

SIZES = flags.DEFINE_list("sizes", ["S"], "Of S (7 M parameters), M (64 M) and toy.")
OUT = flags.DEFINE_string("out", None, "Directory for the results.", required=True)
ONLY = flags.DEFINE_list(
    "only",
    ["train", "generate", "grpo", "start", "memory", "growth"],
    "What to measure; memory is training's.",
)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed calls of each; the median counts.", lower_bound=1)
ENVIRONMENTS = flags.DEFINE_string(
    "environments", ".environments", "What benchmarks/other_environments.sh made; need not be there."
)


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.benchmark import growth, jobs, report, run
    from chestx_jax.storage import on_this_machine

    out = on_this_machine(OUT.value, "--out", "write the results to a disk")
    pythons = run.installed(Path(ENVIRONMENTS.value))
    plan = jobs.plan(SIZES.value, ONLY.value, REPEATS.value, list(pythons))
    found = run.run(plan, out, pythons)
    print(report.write(found, out))
    if "growth" in ONLY.value:
        slopes = growth.draw(jobs.growth(SIZES.value[0], REPEATS.value), found, out / "growth.png")
        (out / "growth.json").write_text(json.dumps(slopes, indent=1) + "\n")
        for name, one in slopes.items():
            print(f"growth with {name}: CPU seconds {one['cpu']:.2f}, operations {one['work']:.2f}")


if __name__ == "__main__":
    from chestx_jax.benchmark.jobs import PlanError
    from chestx_jax.benchmark.report import DifferentWorkError
    from chestx_jax.benchmark.run import BenchmarkError

    start(main, (*EXPECTED, BenchmarkError, DifferentWorkError, PlanError))
