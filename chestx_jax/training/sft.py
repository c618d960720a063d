"""Supervised fine-tuning: loss on the answer tokens and the end of the sequence, nothing else."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from chestx_jax.data.pipeline import Batch, Pipeline, ordered_batches
from chestx_jax.data.processor import Processor
from chestx_jax.parallel import batch_share, make_mesh, put_rows
from chestx_jax.training.bench import Bench, open_bench
from chestx_jax.training.loop import Hooks, train_in
from chestx_jax.training.losses import TokenSums, chunked_cross_entropy
from chestx_jax.training.optimizer import learning_rate, make_optimizer
from chestx_jax.training.resume import Saver
from chestx_jax.training.setup import check_kernel, make_model, make_processor, write_companions
from chestx_jax.training.state import TrainState, init_state, model_from, split_model, trainable_paths
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


def validation_batches(
    config: ConfigDict, bench: Bench, processor: Processor, share: int, shares: int
) -> Iterator[Batch]:
    """Every validation sample once, in batches of `batch_size`, of which this is one process's share."""
    for source in bench.validation:
        yield from ordered_batches(
            source,
            processor,
            buckets=bench.buckets,
            batch_size=config.batch_size,
            target=True,
            process_index=share,
            process_count=shares,
            read_threads=config.data.read_threads,
        )


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
    share, shares = batch_share(mesh)
    bench = open_bench(config.data, config.seed, workdir)
    processor = make_processor(config.model, config.data.image_size, bench.processor)
    batches = Pipeline(
        bench.train,
        processor,
        buckets=bench.buckets,
        batch_size=config.batch_size,
        steps=config.steps,
        seed=config.seed,
        process_index=share,
        process_count=shares,
        read_threads=config.data.read_threads,
    )
    with jax.set_mesh(mesh), Saver(workdir, config) as saver:
        model = make_model(config.model, processor, mesh, config.seed)
        write_companions(life.files.here, model.config, processor, config.model.lora)
        graphdef, params = split_model(model)
        sizes = model.config
        del model
        tx = make_optimizer(config.optimizer, config.steps, config.guard.spike)
        learns = trainable_paths(config.model.freeze, lora=bool(config.model.lora.rank))
        state = init_state(params, tx, learns, mesh, offload=config.optimizer.offload)
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
                list(validation_batches(config, bench, processor, share, shares)),
                config.loss_chunk,
            ),
            flops=partial(step_flops, sizes, shares),
        )
        train_in(state, batches, hooks, config, start=start, life=life)
