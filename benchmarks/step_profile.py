"""Where the time of a training step or of a generation goes on one thread: XLA's own operations, by what they do.

    python -m benchmarks.step_profile [--size=S] [--generate=0] [--steps=5]

Runs the training step of `launch.benchmark`, or its generation of so many rows, under JAX's profiler and adds up its
events. An operation is a product when its fused computation holds one, and so on down `KINDS`.
"""

import collections
import glob
import gzip
import json
import os
import re
import tempfile
from collections.abc import Callable
from typing import Any

os.environ |= {"NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}

import jax
import jax.numpy as jnp
from absl import app, flags
from flax import nnx
from jax.sharding import Mesh

from chestx_jax.benchmark.inputs import rows
from chestx_jax.benchmark.jobs import LOADS, Load
from chestx_jax.benchmark.ours import LOSS_CHUNK, REMAT, fresh_state, one_device
from chestx_jax.benchmark.sizes import SIZES, Size
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.rollout.decode import GREEDY, _generate
from chestx_jax.training.sft import make_train_step

KINDS = {  # name -> what the operation's text or its computation's holds; the first that fits
    "products": r"\b(dot|convolution)\(",
    "transposes and copies": r"\b(transpose|copy|dynamic-slice|slice|gather|concatenate)\(",
    "writes into stacks": r"\bdynamic-update-slice\(",
    "exponentials": r"\b(exponential|logistic|tanh|log)\(",
    "sums and maxima": r"\breduce\(",
    "fills": r"\bbroadcast\(",
    "other elementwise work": r"",
}
CONTAINERS = ("while", "call", "conditional")  # their bodies are counted

_SIZE = flags.DEFINE_string("size", "S", "A size of launch.benchmark.")
_GENERATE = flags.DEFINE_integer("generate", 0, "Rows to generate instead of a training step.", lower_bound=0)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps to add up.", lower_bound=1)


def computations(text: str) -> dict[str, str]:
    """Name -> body of every computation in an HLO module's text."""
    found = {}
    for block in re.split(r"\n(?=%|ENTRY)", text):
        name = re.match(r"(?:ENTRY )?%(\S+) ", block)
        if name:
            found[name.group(1)] = block
    return found


def kinds_of(text: str) -> dict[str, str]:
    """Operation -> its kind, for every operation of a compiled program."""
    bodies, kinds = computations(text), {}
    for line in text.splitlines():
        named = re.match(r"\s*(?:ROOT )?%(\S+) = ", line)
        if named:
            called = re.search(r"calls=%(\S+?)[,)\s]", line + " ")
            held = bodies.get(called.group(1), "") if called else line
            kinds[named.group(1)] = next(kind for kind, sign in KINDS.items() if re.search(sign, held))
    return kinds


def trace_events(directory: str) -> list[dict]:
    """The operations that the profiler saw."""
    [path] = glob.glob(f"{directory}/**/*.trace.json.gz", recursive=True)
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    return [event for event in events if event.get("ph") == "X" and "hlo_op" in event.get("args", {})]


def training(size: Size, load: Load, mesh: Mesh) -> tuple[str, Callable[[], object]]:
    """The text of the compiled program, and one call of it."""
    model = Qwen2VL(size.model, rngs=nnx.Rngs(params=0), remat=REMAT)
    graphdef, tx, schedule, state = fresh_state(model, mesh)
    step: Any = make_train_step(graphdef, tx, schedule, accumulation=1, loss_chunk=LOSS_CHUNK)
    batch = jax.device_put(rows(size.model, size.patches, load.train_batch, load.train_tokens, 1))

    def call() -> object:
        nonlocal state
        state, metrics = step(state, batch)
        return metrics

    return step.lower(state, batch).compile().as_text(), call


def generation(size: Size, load: Load, count: int) -> tuple[str, Callable[[], object]]:
    """Likewise, of `count` rows."""
    model = Qwen2VL(size.model, rngs=nnx.Rngs(params=0))
    batch = jax.device_put(rows(size.model, size.patches, count, load.prompt_tokens, 1))
    inputs = model, batch, jax.random.key(0), jnp.arange(count)
    settings: Any = dict(max_new_tokens=load.new_tokens, eos_ids=(), sampling=GREEDY, group_size=1)
    compiled = _generate.lower(*inputs, **settings).compile()
    return compiled.as_text(), lambda: _generate(*inputs, **settings)


def main(argv: list[str]) -> None:
    size, load, count = SIZES[_SIZE.value], LOADS[_SIZE.value], _GENERATE.value
    mesh = one_device()
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as directory:
        text, call = generation(size, load, count) if count else training(size, load, mesh)
        kinds = kinds_of(text)
        jax.block_until_ready(call())
        with jax.profiler.trace(directory):
            for _ in range(_STEPS.value):
                jax.block_until_ready(call())
        events = trace_events(directory)
    total: collections.Counter[str] = collections.Counter()
    for event in events:
        name = event["args"]["hlo_op"]
        if not name.startswith(CONTAINERS):
            total[kinds.get(name, "other elementwise work")] += event["dur"]
    everything = sum(total.values())
    what = f"generation of {count} rows" if count else "training step"
    print(f"{what} of {_SIZE.value}: {everything / 1e3 / _STEPS.value:.0f} ms of operations")
    for kind, microseconds in total.most_common():
        print(f"{microseconds / everything:6.1%}  {microseconds / 1e3 / _STEPS.value:8.1f} ms  {kind}")


if __name__ == "__main__":
    app.run(main)
