"""A GRPO run from a config: what is loaded, what is saved, what the loop calls."""

import logging
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from chestx_jax.data.pipeline import Batch
from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from chestx_jax.models.qwen2_vl.flops import grpo_update_flops, rollout_flops
from chestx_jax.parallel import MeshError, batch_share, make_mesh
from chestx_jax.rollout import Engine, TokenSpans, writing_mesh
from chestx_jax.training.bench import open_bench, training_batches
from chestx_jax.training.grpo.learner import Learner
from chestx_jax.training.grpo.settings import Settings, check
from chestx_jax.training.grpo.update import make_score, make_update
from chestx_jax.training.grpo.validation import Validation
from chestx_jax.training.loop import Hooks, train_in
from chestx_jax.training.optimizer import learning_rate
from chestx_jax.training.resume import Saver
from chestx_jax.training.setup import check_kernel, first_state, make_model, make_processor, write_companions
from chestx_jax.training.state import TrainingError, model_from, trainable_paths
from chestx_jax.training.workdir import Life, open_workdir

log = logging.getLogger(__name__)


def run(config: ConfigDict, workdir: Path) -> None:
    """Train, or go on with the training that `workdir` holds.

    Raises:
      TrainingError, RewardError: a config that makes no sense, before anything is loaded.
      SampleError, PipelineError, ProcessorError, WeightsError, MeshError, CheckpointError, AttentionError: each
      names what to mend. Preempted: after SIGTERM or `max_seconds`.
    """
    settings = check(config)
    with open_workdir(workdir, config) as life:
        _run(config, settings, workdir, life)


def _run(config: ConfigDict, settings: Settings, workdir: Path, life: Life) -> None:
    mesh = make_mesh(config.mesh)
    check_kernel(config, mesh.devices.flat)
    writing = writing_mesh(mesh, config.rollout.tensor)
    share, shares = batch_share(mesh)
    if batch_share(writing) != (share, shares):
        raise MeshError(
            f"rollout.tensor={config.rollout.tensor} cuts across processes: it must divide a process's devices"
        )
    _check_rows(config, mesh, writing)
    bench = open_bench(config.data, config.seed, workdir)
    processor = make_processor(config.model, config.data.image_size, bench.processor)
    engine = Engine(
        processor, writing, config.rollout.max_new_tokens, settings.sampling, config.rollout.group_size
    )
    draws = config.steps * (1 + config.rollout.refills)
    batches = training_batches(bench, processor, config, mesh, steps=draws, target=False)
    with jax.set_mesh(mesh), Saver(workdir, config) as saver:
        model = make_model(config.model, processor, mesh, config.seed)
        lora, updates = config.model.lora, config.steps * settings.updates
        write_companions(life.files.here, model.config, processor, lora)
        sampling = engine.sampling_for(model)
        learns = trainable_paths(config.model.freeze, lora=bool(lora.rank))
        graphdef, tx, fresh = first_state(model, config, updates, learns, mesh)
        sizes = model.config
        del model
        reference = jax.tree.map(jnp.copy, fresh.trainable) if settings.objective.kl_weight else None
        state, start = saver.resume(fresh, batches)
        learner = Learner(
            config=config,
            settings=settings,
            graphdef=graphdef,
            engine=engine,
            spans=TokenSpans.of(processor.tokenizer.backend_tokenizer),
            mesh=mesh,
            batches=batches,
            score=make_score(
                graphdef, sampling, config.loss_chunk, parts=config.minibatches * config.accumulation
            ),
            update=make_update(
                graphdef,
                tx,
                learning_rate(config.optimizer, updates),
                settings.objective,
                sampling,
                accumulation=config.accumulation,
                chunk=config.loss_chunk,
                on_policy=settings.on_policy,
            ),
            reference=reference,
            workdir=life.files.here,
            step=start,
        )
        validation = Validation(bench.validation, engine, settings.rewards, config.validation_batch)
        hooks = Hooks(
            train_step=learner,
            save=saver.save,
            evaluate=lambda step, state: validation(
                step, engine.take(model_from(graphdef, state.trainable, state.frozen), mesh)
            ),
            flops=partial(step_flops, sizes, config.rollout, shares),
        )
        train_in(state, batches, hooks, config, start=start, life=life)


def step_flops(sizes: Qwen2VLConfig, rollout: ConfigDict, shares: int, batch: Batch) -> float:
    """Operations of one rollout of the `shares` of which this batch is one, and of one update from it, as if no
    response ended early: what is left out are the passes for the log-probabilities of other weights."""
    prompts, tokens = batch.arrays["tokens"].shape
    patches = batch.arrays["patches"].shape[1]
    asked = (prompts * shares, rollout.group_size, tokens, patches, rollout.max_new_tokens)
    return rollout_flops(sizes, *asked) + grpo_update_flops(sizes, *asked)


def _check_rows(config: ConfigDict, mesh: Mesh, writing: Mesh) -> None:
    parts = config.minibatches * config.accumulation
    for name, what, prompts, where in (
        ("batch_size", "prompts at a time", config.batch_size // parts, mesh),
        ("batch_size", "prompts to complete", config.batch_size, writing),
        ("validation_batch", "prompts to complete", config.validation_batch, writing),
    ):
        shares = where.shape["replica"] * where.shape["fsdp"]
        if prompts % shares:
            raise TrainingError(
                f"config.{name}: {prompts} {what} cannot be divided evenly among the {shares} shares of "
                + (
                    "the mesh's axes replica x fsdp"
                    if where is mesh
                    else "the devices by config.rollout.tensor"
                )
            )
