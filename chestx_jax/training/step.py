"""One jitted update from sums: the mean over all targets of the batch, whatever the micro-batches."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from chestx_jax.data.pipeline import Batch
from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from chestx_jax.models.qwen2_vl.flops import update_flops
from chestx_jax.training.guard import advance
from chestx_jax.training.losses import TokenSums
from chestx_jax.training.state import TrainState

Arrays = Mapping[str, Array]
TrainStep = Callable[[TrainState, Arrays], tuple[TrainState, dict[str, Array]]]
SumsOf = Callable[[Any, Any, Arrays], TokenSums]
"""(trainable, frozen, batch) -> sums over the batch's targets."""


def make_step(
    sums_of: SumsOf,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    accumulation: int,
    target: str,
) -> TrainStep:
    """The update on `sums_of`.

    Gradients of the *sums* are added over `accumulation` micro-batches and divided once by the count of targets, so
    the result is that of the whole batch, also where micro-batches hold different numbers of targets.

    Args:
      target: what a target is, for the names of the metrics: "token" gives token_accuracy and target_tokens.
    """

    def loss_sum(trainable: Any, frozen: Any, batch: Arrays) -> tuple[Array, TokenSums]:
        sums = sums_of(trainable, frozen, batch)
        return sums.loss, sums

    def gradient_sums(state: TrainState, batch: Arrays) -> tuple[Any, TokenSums]:
        grad = jax.grad(loss_sum, has_aux=True)
        if accumulation == 1:
            return grad(state.trainable, state.frozen, batch)

        def micro_step(carry: tuple[Any, TokenSums], micro: Arrays) -> tuple[tuple[Any, TokenSums], None]:
            return jax.tree.map(jnp.add, carry, grad(state.trainable, state.frozen, micro)), None

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), state.trainable)
        # Every device keeps rows of each micro-batch: row r goes to micro-batch r % accumulation.
        micros = jax.tree.map(
            lambda x: x.reshape(x.shape[0] // accumulation, accumulation, *x.shape[1:]).swapaxes(0, 1), batch
        )
        return jax.lax.scan(micro_step, (zeros, TokenSums.zero()), micros)[0]

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: TrainState, batch: Arrays) -> tuple[TrainState, dict[str, Array]]:
        gradients, sums = gradient_sums(state, batch)
        count = jnp.maximum(sums.count, 1.0)
        gradients = jax.tree.map(lambda g: g / count.astype(g.dtype), gradients)
        state, update = advance(state, tx, schedule, gradients)
        return state, {
            "loss": sums.loss / count,
            f"{target}_accuracy": sums.correct / count,
            f"target_{target}s": sums.count,
            "tokens": (batch["segments"] > 0).sum(),
            **update,
        }

    return train_step


def step_flops(sizes: Qwen2VLConfig, shares: int, batch: Batch) -> float:
    """Operations of an update on the `shares` of which this batch is one, as if everything learned."""
    rows, tokens = batch.arrays["tokens"].shape
    return update_flops(sizes, rows * shares, tokens, batch.arrays["patches"].shape[1])
