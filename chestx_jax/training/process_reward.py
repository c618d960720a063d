"""The process reward model learns to judge steps: gold ones, and ones that are known to be false."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from chestx_jax.data.perturbations import CONTRADICTED, label_samples, labelled_steps
from chestx_jax.data.pipeline import Batch, Source
from chestx_jax.data.processor import Processor
from chestx_jax.evaluation.step_scores import JudgedSample, step_scores, table
from chestx_jax.models.process_reward import add_step_head, step_logits
from chestx_jax.parallel import batch_share, gather_shares, is_first, make_mesh, own_rows, place, put_rows
from chestx_jax.rollout import TokenSpans
from chestx_jax.rollout.steps import steps_of
from chestx_jax.training.bench import Bench, open_bench, training_batches, validation_batches
from chestx_jax.training.loop import Hooks, train_in
from chestx_jax.training.losses import TokenSums
from chestx_jax.training.optimizer import learning_rate
from chestx_jax.training.resume import Saver
from chestx_jax.training.setup import check_kernel, first_state, make_model, make_processor, write_companions
from chestx_jax.training.state import (
    TrainingError,
    TrainState,
    model_from,
    trainable_paths,
)
from chestx_jax.training.step import Arrays, make_step, step_flops
from chestx_jax.training.workdir import Life, open_workdir

log = logging.getLogger(__name__)

SCORES = "step_scores.json"


def step_sums(graphdef: nnx.GraphDef, trainable: Any, frozen: Any, batch: Arrays) -> TokenSums:
    """Weighted cross-entropy, hits and weight over a batch's steps (fields `step_*`, see `StepArrays`)."""
    model = model_from(graphdef, trainable, frozen)
    labels, weights = batch["step_labels"], batch["step_weights"]
    logits = step_logits(model, batch, batch["step_ids"], labels.shape[1])
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
    hits = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    return TokenSums(loss=(losses * weights).sum(), correct=(hits * weights).sum(), count=weights.sum())


class StepArrays:
    """Adds to a batch of labelled samples where its steps are and what they are: step_ids[B,T] (-1 is none),
    step_labels[B,S], step_weights[B,S] (0 is none)."""

    def __init__(self, processor: Processor, max_steps: int):
        self._spans = TokenSpans.of(processor.tokenizer.backend_tokenizer)
        self._max_steps = max_steps

    def check(self, samples: Sequence[Any]) -> None:
        """Raises TrainingError for the longest reasoning when it has more steps than there is room for."""
        longest = max(samples, key=lambda sample: len(sample.reason_steps))
        if len(longest.reason_steps) > self._max_steps:
            raise TrainingError(
                f"config.max_steps is {self._max_steps}, but sample {longest.id!r} has "
                f"{len(longest.reason_steps)} steps"
            )

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        shape = (len(batch.row_mask), self._max_steps)
        ids = np.full(batch.arrays["tokens"].shape, -1, np.int32)
        labels, weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for row, sample in enumerate(batch.samples):
            target = np.flatnonzero(batch.arrays["loss_mask"][row])
            found, spans = steps_of(self._spans, batch.arrays["tokens"][row, target])
            steps = labelled_steps(sample)
            if len(spans) != len(steps):
                raise TrainingError(f"sample {sample.id!r}: {len(steps)} steps, {len(spans)} in its tokens")
            ids[row, target] = found
            labels[row, : len(steps)] = [step.label for step in steps]
            weights[row, : len(steps)] = [step.weight for step in steps]
        return {**batch.arrays, "step_ids": ids, "step_labels": labels, "step_weights": weights}


def judge(
    graphdef: nnx.GraphDef, mesh: Mesh, arrays: StepArrays
) -> Callable[[TrainState, Iterator[Batch]], list[JudgedSample]]:
    """The model's verdicts on labelled batches of this process, and of all others."""

    @jax.jit
    def probabilities(trainable: Any, frozen: Any, batch: Arrays) -> Any:
        model, steps = model_from(graphdef, trainable, frozen), batch["step_labels"].shape[1]
        return jax.nn.softmax(step_logits(model, batch, batch["step_ids"], steps))

    def run(state: TrainState, batches: Iterator[Batch]) -> list[JudgedSample]:
        judged = []
        for batch in batches:
            found = own_rows(
                mesh, probabilities(state.trainable, state.frozen, put_rows(mesh, arrays(batch)))
            )
            for sample, row in zip(batch.samples, found, strict=False):  # filling rows come last
                steps = labelled_steps(sample)
                judged.append(JudgedSample(sample.id, steps, row[: len(steps)]))
        return [sample for part in gather_shares(mesh, judged) for sample in part]

    return run


def label_bench(bench: Bench, config: ConfigDict) -> Bench:
    """The bench with labelled samples; validation is perturbed by another seed, once."""
    return replace(
        bench,
        train=tuple(
            replace(source, samples=label_samples(source.samples, config.seed, config.copies))
            for source in bench.train
        ),
        validation=tuple(
            replace(source, samples=label_samples(source.samples, config.seed + 1))
            for source in bench.validation
        ),
    )


def run(config: ConfigDict, workdir: Path) -> None:
    """Train, or go on with the training that `workdir` holds; then write how well steps are told apart
    (`step_scores.json`), with the images and with blank ones.

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
    bench = label_bench(open_bench(config.data, config.seed, workdir), config)
    processor = make_processor(config.model, config.data.image_size, bench.processor)
    arrays = StepArrays(processor, config.max_steps)
    for source in (*bench.train, *bench.validation):
        arrays.check(source.samples)
    _check_validation(bench, config.eval_samples)
    batches = training_batches(bench, processor, config, mesh, steps=config.steps, target=True)
    with jax.set_mesh(mesh), Saver(workdir, config) as saver:
        model = make_model(config.model, processor, mesh, config.seed)
        add_step_head(model)
        place(model, mesh)
        write_companions(life.files.here, model.config, processor, config.model.lora)
        graphdef, tx, state = first_state(model, config, config.steps, learns(config), mesh)
        sizes = model.config
        del model
        state, start = saver.resume(state, batches)
        step = make_step(
            partial(step_sums, graphdef),
            tx,
            learning_rate(config.optimizer, config.steps),
            accumulation=config.accumulation,
            target="step",
        )
        judged = judge(graphdef, mesh, arrays)
        few = [_first(source, config.eval_samples) for source in bench.validation]

        def evaluate(number: int, state: TrainState) -> dict[str, float]:
            scores = step_scores(judged(state, validation_batches(few, bench, processor, config, mesh)))
            log.info("step %d  validation AUROC %.3f", number, scores["kinds"]["all"]["auroc"])
            return {
                "auroc": scores["kinds"]["all"]["auroc"],
                "first_error_accuracy": scores["first_error_accuracy"],
            }

        hooks = Hooks(
            train_step=lambda state, batch: step(state, put_rows(mesh, arrays(batch))),
            save=saver.save,
            evaluate=evaluate,
            flops=partial(step_flops, sizes, shares),
        )
        state = train_in(state, batches, hooks, config, start=start, life=life)
        scores = {
            name: step_scores(
                judged(
                    state,
                    validation_batches(bench.validation, bench, processor, config, mesh, blank_images=blank),
                )
            )
            for name, blank in (("images", False), ("blank images", True))
        }
    if is_first():
        (life.files.here / SCORES).write_text(json.dumps(scores, indent=2) + "\n")
        print(table(scores))


def learns(config: ConfigDict) -> Callable[[str], bool]:
    """Which dotted parameter paths learn: the head learns always, the trunk as the config says."""
    trunk = trainable_paths(config.model.freeze, lora=bool(config.model.lora.rank))
    return lambda path: path.startswith("step_head.") or trunk(path)


def _check_validation(bench: Bench, count: int) -> None:
    steps = [
        step
        for source in bench.validation
        for sample in source.samples[:count]
        for step in labelled_steps(sample)
    ]
    if not any(step.label == CONTRADICTED for step in steps):
        raise TrainingError(
            f"config.data.validation: none of {len(steps)} steps could be made false, so there is nothing to tell "
            "apart; give more samples with reasoning"
        )


def _first(source: Source, count: int) -> Source:
    return replace(source, samples=source.samples[:count])
