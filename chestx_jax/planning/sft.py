"""The program of supervised fine-tuning."""

from typing import Any

import jax
from ml_collections import ConfigDict

from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from chestx_jax.parallel import make_mesh
from chestx_jax.planning.abstract import (
    Program,
    abstract_batch,
    abstract_model,
    abstract_state,
    in_words,
    training_program,
)
from chestx_jax.planning.textbook import Passes, rows_flops
from chestx_jax.training.optimizer import learning_rate
from chestx_jax.training.sft import make_train_step
from chestx_jax.training.state import trainable_paths


def update(
    config: ConfigDict, sizes: Qwen2VLConfig, devices: list[jax.Device], tokens: int, patches: int
) -> Program:
    """One training step on samples of one bucket."""
    mesh = make_mesh(config.mesh, devices)
    model = abstract_model(config.model, sizes, mesh)
    learns = trainable_paths(config.model.freeze, lora=bool(config.model.lora.rank))
    graphdef, tx, state = abstract_state(model, config, config.steps, learns, mesh)
    step: Any = make_train_step(
        graphdef,
        tx,
        learning_rate(config.optimizer, config.steps),
        accumulation=config.accumulation,
        loss_chunk=config.loss_chunk,
    )
    batch = abstract_batch(mesh, config.batch_size, tokens, patches)
    passes = Passes.of(state.trainable, sizes.tie_word_embeddings)
    return training_program(
        "sft",
        in_words(tokens, patches),
        step,
        state,
        (batch,),
        mesh=mesh,
        model_flops=rows_flops(sizes, passes, config.batch_size, tokens, patches),
        tokens=config.batch_size * tokens,
        runs=config.steps,
    )
