"""Where a training step's time goes on one thread: XLA's own operations, by what they do.

    python benchmarks/step_profile.py [--size=S] [--steps=5]

Runs the training step of `launch.benchmark` under JAX's profiler and adds up its events. An operation is a product
when its fused computation holds one, and so on down `KINDS`.
"""

import collections
import glob
import gzip
import json
import os
import re
import tempfile

os.environ |= {"NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}

import jax
from absl import app, flags
from flax import nnx

from chestx_jax.benchmark.inputs import rows
from chestx_jax.benchmark.jobs import LOADS
from chestx_jax.benchmark.ours import LOSS_CHUNK, OPTIMIZER, REMAT
from chestx_jax.benchmark.sizes import SIZES
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import make_mesh
from chestx_jax.training.optimizer import learning_rate, make_optimizer
from chestx_jax.training.sft import make_train_step
from chestx_jax.training.state import init_state, split_model

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


def main(argv: list[str]) -> None:
    size, load = SIZES[_SIZE.value], LOADS[_SIZE.value]
    mesh = make_mesh({"replica": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as directory:
        graphdef, params = split_model(Qwen2VL(size.model, rngs=nnx.Rngs(params=0), remat=REMAT))
        tx, schedule = make_optimizer(OPTIMIZER, 1000), learning_rate(OPTIMIZER, 1000)
        state = init_state(params, tx, lambda path: True, mesh)
        step = make_train_step(graphdef, tx, schedule, accumulation=1, loss_chunk=LOSS_CHUNK)
        batch = jax.device_put(rows(size.model, size.patches, load.train_batch, load.train_tokens, 1))
        kinds = kinds_of(step.lower(state, batch).compile().as_text())  # type: ignore[attr-defined]
        state, _ = jax.block_until_ready(step(state, batch))
        with jax.profiler.trace(directory):
            for _ in range(_STEPS.value):
                state, _ = jax.block_until_ready(step(state, batch))
        events = trace_events(directory)
    total: collections.Counter[str] = collections.Counter()
    for event in events:
        name = event["args"]["hlo_op"]
        if not name.startswith(CONTAINERS):
            total[kinds.get(name, "other elementwise work")] += event["dur"]
    everything = sum(total.values())
    print(f"training step of {_SIZE.value}: {everything / 1e3 / _STEPS.value:.0f} ms of operations")
    for kind, microseconds in total.most_common():
        print(f"{microseconds / everything:6.1%}  {microseconds / 1e3 / _STEPS.value:8.1f} ms  {kind}")


if __name__ == "__main__":
    app.run(main)
