"""The programs of the process reward model: its training step, and its verdicts on completions."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from chestx_jax.models.process_reward import add_step_head
from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from chestx_jax.parallel import make_mesh
from chestx_jax.planning.abstract import (
    Program,
    abstract_batch,
    abstract_model,
    abstract_state,
    chip_bytes,
    in_words,
    rows_of,
    training_program,
)
from chestx_jax.planning.textbook import Passes, rows_flops
from chestx_jax.rewards.learned import STEP_STEP, judging_mesh, probabilities, rows_at_a_time
from chestx_jax.training.optimizer import learning_rate
from chestx_jax.training.process_reward import learns, step_sums
from chestx_jax.training.step import make_step


def update(
    config: ConfigDict, sizes: Qwen2VLConfig, devices: list[jax.Device], tokens: int, patches: int
) -> Program:
    """One training step on samples of one bucket."""
    mesh = make_mesh(config.mesh, devices)
    model = abstract_model(config.model, sizes, mesh, extend=add_step_head)
    graphdef, tx, state = abstract_state(model, config, config.steps, learns(config), mesh)
    step: Any = make_step(
        partial(step_sums, graphdef),
        tx,
        learning_rate(config.optimizer, config.steps),
        accumulation=config.accumulation,
        target="step",
    )
    rows = config.batch_size
    batch = {
        **abstract_batch(mesh, rows, tokens, patches),
        "step_ids": rows_of(mesh, (rows, tokens), jnp.int32),
        "step_labels": rows_of(mesh, (rows, config.max_steps), jnp.int32),
        "step_weights": rows_of(mesh, (rows, config.max_steps), jnp.float32),
    }
    passes = Passes.of(state.trainable, sizes.tie_word_embeddings)
    return training_program(
        "process reward",
        in_words(tokens, patches),
        step,
        state,
        (batch,),
        mesh=mesh,
        model_flops=rows_flops(sizes, passes, rows, tokens, patches),
        tokens=rows * tokens,
        runs=config.steps,
    )


def verdicts(
    config: ConfigDict, sizes: Qwen2VLConfig, devices: list[jax.Device], tokens: int, patches: int
) -> Program:
    """One pass of the frozen model, as the reward of a GRPO run: prompt and completion in a row each. From a recipe of
    the reward model, `tokens` holds both; from one of GRPO it is the prompt, and the completion comes on top."""
    mesh = judging_mesh(devices)
    policy = "rollout" in config
    length = tokens + (config.rollout.max_new_tokens if policy else 0)
    steps = -(-(64 if policy else config.max_steps) // STEP_STEP) * STEP_STEP
    frozen = config.model.copy_and_resolve_references()
    frozen.lora.rank = 0  # adapters are merged
    frozen.dtype = frozen.param_dtype  # as `rewards.learned.Judge.load` computes
    frozen.attention = "xla"  # and attends: its rows are of any length
    model = abstract_model(frozen, sizes, mesh, extend=add_step_head)
    rows = rows_at_a_time(mesh)
    batch = abstract_batch(mesh, rows, length, patches)
    parts = {
        "parameters": chip_bytes(nnx.to_pure_dict(nnx.state(model))),
        "batch": chip_bytes(batch),
    }
    completions = config.batch_size * config.rollout.group_size if policy else rows
    return Program(
        name=f"process reward's verdicts {in_words(length, patches)}",
        bucket=in_words(tokens, patches),
        trace=partial(probabilities.trace, model, batch, rows_of(mesh, (rows, length), jnp.int32), steps),
        mesh=mesh,
        parts=parts,
        model_flops=rows_flops(sizes, Passes(), rows, length, patches),
        tokens=rows * length,
        hbm_bytes=sum(parts.values()),
        runs=config.steps * -(-completions // rows) if policy else 0,
    )
