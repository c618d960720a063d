"""What our own programs cost: the steps that a run calls, on models that `inputs.prepare` wrote. GRPO's have a file of
their own: the others start without what only it imports, as `launch.sft` does."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from chestx_jax.benchmark.clock import WARM_UP, Measured, repeat
from chestx_jax.benchmark.inputs import rows
from chestx_jax.benchmark.jobs import MODEL, Job
from chestx_jax.benchmark.sizes import SIZES
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.models.qwen2_vl.flops import rollout_flops, update_flops
from chestx_jax.parallel import make_mesh
from chestx_jax.rollout import Sampling, generate
from chestx_jax.training.optimizer import learning_rate, make_optimizer
from chestx_jax.training.sft import make_train_step
from chestx_jax.training.state import TrainState, init_state, split_model
from chestx_jax.weights import load_pretrained

OPTIMIZER = ConfigDict(
    dict(
        peak=1e-5,
        schedule="constant",
        warmup=0.0,
        final=0.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        clip=1.0,
        mu_dtype="float32",
    )
)
LOSS_CHUNK = 32  # as in the recipes for a laptop
REMAT = "most"  # likewise
STEPS = 1000  # of a run that is never run


def train(job: Job, directory: Path, warm_up: int = WARM_UP) -> Measured:
    """Training steps on one batch of `job.tokens` tokens a row, all of its text to be predicted."""
    mesh = one_device()
    with jax.set_mesh(mesh):
        model = load_pretrained(directory / MODEL, mesh=mesh, remat=REMAT)
        config, patches = model.config, SIZES[job.size].patches
        batch = jax.device_put(rows(config, patches, job.batch, job.tokens, job.images))
        graphdef, tx, schedule, state = fresh_state(model, mesh)
        del model
        step = make_train_step(graphdef, tx, schedule, accumulation=1, loss_chunk=LOSS_CHUNK)
        losses = []

        def call() -> None:
            nonlocal state
            state, metrics = jax.block_until_ready(step(state, batch))
            losses.append(float(metrics["loss"]))

        found = repeat(call, job.repeats, warm_up)
    found.work = update_flops(config, job.batch, job.tokens, job.images * patches)
    found.facts = {"first_loss": losses[0], "parameters": _count((state.trainable, state.frozen))}
    return found


def generation(job: Job, directory: Path) -> Measured:
    """Greedy continuations that never end early."""
    with jax.set_mesh(one_device()):
        model = load_pretrained(directory / MODEL)
        config, patches = model.config, SIZES[job.size].patches
        batch = jax.device_put(rows(config, patches, job.batch, job.tokens, job.images))
        sampling = Sampling(forbidden_ids=(config.image_token_id, config.video_token_id))
        drawn = []

        def call() -> None:
            out = generate(model, batch, max_new_tokens=job.new_tokens, eos_ids=(), sampling=sampling)
            drawn.append(np.asarray(out.tokens))

        found = repeat(call, job.repeats)
    found.work = rollout_flops(config, job.batch, 1, job.tokens, job.images * patches, job.new_tokens)
    found.facts = {"tokens": drawn[0].tolist()}
    return found


def fresh_state(
    model: Qwen2VL, mesh: Mesh
) -> tuple[nnx.GraphDef, optax.GradientTransformation, optax.Schedule, TrainState]:
    """What a measured run begins with: everything learns."""
    graphdef, params = split_model(model)
    tx = make_optimizer(OPTIMIZER, STEPS)
    state = init_state(params, tx, lambda path: True, mesh)
    return graphdef, tx, learning_rate(OPTIMIZER, STEPS), state


def one_device() -> Mesh:
    """The mesh of what is measured."""
    return make_mesh({"replica": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
