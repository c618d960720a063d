"""What our own programs cost: the steps that a run calls, on models that `inputs.prepare` wrote."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from chestx_jax.benchmark.clock import WARM_UP, Measured, repeat, text_reward
from chestx_jax.benchmark.inputs import rows
from chestx_jax.benchmark.jobs import MODEL, SAMPLES, Job
from chestx_jax.benchmark.sizes import SIZES
from chestx_jax.data import Processor, read_samples
from chestx_jax.data.example import Bucket
from chestx_jax.data.pipeline import Pipeline, Source
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.models.qwen2_vl.flops import grpo_update_flops, rollout_flops, update_flops
from chestx_jax.parallel import make_mesh
from chestx_jax.rewards import RewardMixture
from chestx_jax.rollout import Engine, Sampling, TokenSpans, generate
from chestx_jax.training.grpo.learner import Learner
from chestx_jax.training.grpo.objective import Objective
from chestx_jax.training.grpo.settings import Settings
from chestx_jax.training.grpo.update import make_score, make_update
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
    mesh = _mesh()
    with jax.set_mesh(mesh):
        model = load_pretrained(directory / MODEL, mesh=mesh, remat=REMAT)
        config, patches = model.config, SIZES[job.size].patches
        batch = jax.device_put(rows(config, patches, job.batch, job.tokens, job.images))
        graphdef, tx, schedule, state = _state(model, mesh)
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
    with jax.set_mesh(_mesh()):
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


@dataclasses.dataclass(frozen=True)
class Endless(Engine):
    """Completions that never end early: every one has the same length, whatever the weights."""

    def sampling_for(self, model: Qwen2VL) -> Sampling:
        usual = super().sampling_for(model)
        return dataclasses.replace(usual, forbidden_ids=(*usual.forbidden_ids, *self.processor.eos_ids))


def grpo(job: Job, directory: Path) -> Measured:
    """Whole steps of the learner: pictures read, completions drawn and rewarded, one update; no reference model."""
    mesh, size = _mesh(), SIZES[job.size]
    processor = Processor.from_pretrained(directory / MODEL, image_size=size.image_size)
    samples = read_samples(directory / SAMPLES)
    prompts = Pipeline(
        [Source("random", samples, "answer")],
        processor,
        buckets=(Bucket(job.tokens, size.patches),),
        batch_size=job.batch,
        steps=STEPS,
        seed=0,
        target=False,
        read_threads=0,
    )
    objective = Objective(kl_weight=0.0, entropy_weight=0.0)
    sampling = Sampling(temperature=1.0)
    engine = Endless(processor, mesh, job.new_tokens, sampling, job.group)
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as workdir:
        model = load_pretrained(directory / MODEL, mesh=mesh, remat=REMAT)
        config, sampling = model.config, engine.sampling_for(model)
        graphdef, tx, schedule, state = _state(model, mesh)
        del model
        update = make_update(
            graphdef, tx, schedule, objective, sampling, accumulation=1, chunk=LOSS_CHUNK, on_policy=True
        )
        learner = Learner(
            config=_learner_config(job.batch),
            settings=Settings(objective, engine.sampling, RewardMixture.from_config(REWARDS), updates=1),
            graphdef=graphdef,
            engine=engine,
            spans=TokenSpans.of(processor.tokenizer.backend_tokenizer),
            mesh=mesh,
            batches=prompts,
            score=make_score(graphdef, sampling, LOSS_CHUNK, parts=1),
            update=update,
            reference=None,
            workdir=Path(workdir),
            step=0,
        )
        seen: list[dict[str, Any]] = []

        def call() -> None:
            nonlocal state
            state, metrics = jax.block_until_ready(learner(state, next(prompts)))
            seen.append(metrics)

        found = repeat(call, job.repeats)
    lengths = (job.batch, job.group, job.tokens, size.patches, job.new_tokens)
    found.work = rollout_flops(config, *lengths) + grpo_update_flops(config, *lengths)
    found.facts = {
        "mean_length": float(seen[-1]["response/length_mean"]),
        "prompt_tokens": processor.lengths(samples, mode="answer", target=False)[:, 0].mean(),
        "rollout_seconds": sorted(m["seconds/rollout"] for m in seen[-job.repeats :])[job.repeats // 2],
    }
    return found


REWARDS = {
    "text": dict(function="chestx_jax.benchmark.ours.text_rewards", weight=1.0, clip=(-1.0, 1.0), schedule=())
}


def text_rewards(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """`clock.text_reward` under the signature of reward functions."""
    return text_reward(completions)


def _learner_config(prompts: int) -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            batch_size=prompts,
            epochs=1,
            minibatches=1,
            table_every=STEPS + 1,
            table_prompts=1,
            advantage=dict(estimator="group", credit="scalar"),
            rollout=dict(refills=0, overlong="keep"),
        )
    )


def _state(
    model: Qwen2VL, mesh: Mesh
) -> tuple[nnx.GraphDef, optax.GradientTransformation, optax.Schedule, TrainState]:
    graphdef, params = split_model(model)
    tx = make_optimizer(OPTIMIZER, STEPS)
    state = init_state(params, tx, lambda path: True, mesh)
    return graphdef, tx, learning_rate(OPTIMIZER, STEPS), state


def _mesh() -> Mesh:
    return make_mesh({"replica": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
