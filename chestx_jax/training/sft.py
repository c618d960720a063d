"""Supervised fine-tuning: loss on the answer tokens and the end of the sequence, nothing else."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from chestx_jax.data.pipeline import Batch
from chestx_jax.parallel import batch_share, make_mesh, put_rows
from chestx_jax.training.bench import open_bench, training_batches, validation_batches
from chestx_jax.training.loop import Hooks, train_in
from chestx_jax.training.losses import TokenSums, chunked_cross_entropy
from chestx_jax.training.optimizer import learning_rate
from chestx_jax.training.resume import Saver
from chestx_jax.training.setup import check_kernel, first_state, make_model, make_processor, write_companions
from chestx_jax.training.state import TrainState, model_from, trainable_paths
from chestx_jax.training.step import Arrays, TrainStep, make_step, step_flops
from chestx_jax.training.workdir import Life, open_workdir

log = logging.getLogger(__name__)


def token_sums(
    graphdef: nnx.GraphDef, loss_chunk: int, trainable: Any, frozen: Any, batch: Arrays
) -> TokenSums:
    """The loss, hits and count over a batch's target tokens."""
    model = model_from(graphdef, trainable, frozen)
    hidden = model.hidden(batch)
    return chunked_cross_entropy(model.head_kernel(), hidden, batch["tokens"], batch["loss_mask"], loss_chunk)


def make_train_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    accumulation: int,
    loss_chunk: int,
) -> TrainStep:
    """The update on the mean loss over all target tokens of the batch (`make_step`)."""
    sums_of = partial(token_sums, graphdef, loss_chunk)
    return make_step(sums_of, tx, schedule, accumulation=accumulation, target="token")


def put_batch(mesh: Mesh, batch: Batch) -> Arrays:
    """This process's rows of a batch as global arrays on the mesh."""
    return put_rows(mesh, batch.arrays)


def make_evaluate(
    graphdef: nnx.GraphDef, mesh: Mesh, batches: list[Batch], loss_chunk: int
) -> Callable[[int, TrainState], dict[str, float]]:
    """Teacher-forced loss, perplexity and token accuracy over fixed batches; nothing where there are none."""
    sums_of = jax.jit(partial(token_sums, graphdef, loss_chunk))

    def evaluate(step: int, state: TrainState) -> dict[str, float]:
        if not batches:
            return {}
        total = TokenSums.zero()
        for batch in batches:
            total = total + sums_of(state.trainable, state.frozen, put_batch(mesh, batch))
        loss, accuracy = float(total.loss / total.count), float(total.correct / total.count)
        log.info("step %d  validation loss %.4f  token accuracy %.4f", step, loss, accuracy)
        return {"loss": loss, "perplexity": float(np.exp(loss)), "token_accuracy": accuracy}

    return evaluate


def run(config: ConfigDict, workdir: Path) -> None:
    """Train, or go on with the training that `workdir` holds.

    Raises:
      TrainingError, SampleError, PipelineError, ProcessorError, WeightsError, MeshError, CheckpointError,
      AttentionError: each names what to mend. Preempted: after SIGTERM or `max_seconds`.
    """
    with open_workdir(workdir, config) as life:
        _run(config, workdir, life)


def _run(config: ConfigDict, workdir: Path, life: Life) -> None:
    mesh = make_mesh(config.mesh)
    check_kernel(config, mesh.devices.flat)
    _, shares = batch_share(mesh)
    bench = open_bench(config.data, config.seed, workdir)
    processor = make_processor(config.model, config.data.image_size, bench.processor)
    batches = training_batches(bench, processor, config, mesh, steps=config.steps, target=True)
    with jax.set_mesh(mesh), Saver(workdir, config) as saver:
        model = make_model(config.model, processor, mesh, config.seed)
        write_companions(life.files.here, model.config, processor, config.model.lora)
        learns = trainable_paths(config.model.freeze, lora=bool(config.model.lora.rank))
        graphdef, tx, state = first_state(model, config, config.steps, learns, mesh)
        sizes = model.config
        del model
        state, start = saver.resume(state, batches)
        step = make_train_step(
            graphdef,
            tx,
            learning_rate(config.optimizer, config.steps),
            accumulation=config.accumulation,
            loss_chunk=config.loss_chunk,
        )
        hooks = Hooks(
            train_step=lambda state, batch: step(state, put_batch(mesh, batch)),
            save=saver.save,
            evaluate=make_evaluate(
                graphdef,
                mesh,
                list(validation_batches(bench.validation, bench, processor, config, mesh)),
                config.loss_chunk,
            ),
            flops=partial(step_flops, sizes, shares),
        )
        train_in(state, batches, hooks, config, start=start, life=life)
