"""The device's part of a GRPO step: log-probabilities of responses, and one jitted update from them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jaxtyping import Array, Float, Int

from chestx_jax.models.qwen2_vl.continuation import continuation_hidden
from chestx_jax.rollout import Sampling
from chestx_jax.training.grpo.logprobs import token_logprobs
from chestx_jax.training.grpo.losses import aggregation_weights
from chestx_jax.training.grpo.objective import Experience, LossSums, Objective, grpo_loss
from chestx_jax.training.guard import advance
from chestx_jax.training.state import TrainState, model_from

Prompts = dict[str, Array]
Update = Callable[[TrainState, Prompts, Int[Array, "R N"], Experience], tuple[TrainState, dict[str, Array]]]
Score = Callable[[Any, Any, Prompts, Int[Array, "R N"], Array], Float[Array, "R N"]]


@struct.dataclass
class _Micro:
    """The rows of one micro-batch."""

    prompts: Prompts
    tokens: Int[Array, "R N"]
    experience: Experience


def make_score(graphdef: nnx.GraphDef, sampling: Sampling, chunk: int, parts: int) -> Score:
    """The jitted (trainable, frozen, prompts, tokens, mask) -> log-probabilities of the responses [R, N].

    Args:
      parts: how many the prompts are divided into, one after the other: as many as all micro-batches of an update,
        so that what fits there fits here.
    """

    @jax.jit
    def score(trainable: Any, frozen: Any, prompts: Prompts, tokens: Array, mask: Array) -> Array:
        model = model_from(graphdef, trainable, frozen)

        def some(rows: tuple[Prompts, Array, Array]) -> Array:
            hidden = continuation_hidden(model, *rows)
            return token_logprobs(model.logits, hidden, *rows[1:], sampling, chunk)[0]

        rows, count = (prompts, tokens, mask), prompts["tokens"].shape[0]
        if parts == 1:
            return some(rows)
        found = jax.lax.map(some, _in_turn(rows, count, parts))
        found = found.reshape(parts, count // parts, -1, *found.shape[2:])
        return found.swapaxes(0, 1).reshape(tokens.shape)

    return score


def make_update(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    objective: Objective,
    sampling: Sampling,
    *,
    accumulation: int,
    chunk: int,
    on_policy: bool,
) -> Update:
    """One jitted update on P prompts with R = P * G responses.

    The weights of the tokens are made from the masks of all rows, so that micro-batches add up to the gradient
    of the whole. Prompts go to micro-batches in turn (prompt p to p % accumulation), each with its whole group.

    Args:
      on_policy: the responses were drawn from these very weights: their log-probabilities are those that this
        update computes anyway, and `Experience.old_logprobs` is not read.
    """

    def micro_loss(trainable: Any, frozen: Any, micro: _Micro) -> tuple[Array, LossSums]:
        model, experience = model_from(graphdef, trainable, frozen), micro.experience
        hidden = continuation_hidden(model, micro.prompts, micro.tokens, experience.mask)
        logprobs, entropy = token_logprobs(
            model.logits, hidden, micro.tokens, experience.mask, sampling, chunk
        )
        if on_policy:
            experience = dataclasses.replace(experience, old_logprobs=jax.lax.stop_gradient(logprobs))
        return grpo_loss(objective, logprobs, entropy, experience)

    grad = jax.value_and_grad(micro_loss, has_aux=True)

    def gradients(state: TrainState, rows: _Micro) -> tuple[tuple[Array, LossSums], Any]:
        if accumulation == 1:
            return grad(state.trainable, state.frozen, rows)

        def step(carry: tuple[Array, LossSums, Any], micro: _Micro) -> tuple[Any, None]:
            loss, sums, total = carry
            (more_loss, more_sums), more = grad(state.trainable, state.frozen, micro)
            return (loss + more_loss, sums + more_sums, jax.tree.map(jnp.add, total, more)), None

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), state.trainable)
        start = (jnp.zeros(()), LossSums.zero(), zeros)
        (loss, sums, total), _ = jax.lax.scan(
            step, start, _in_turn(rows, rows.prompts["tokens"].shape[0], accumulation)
        )
        return (loss, sums), total

    @partial(jax.jit, donate_argnums=0)
    def update(
        state: TrainState, prompts: Prompts, tokens: Int[Array, "R N"], experience: Experience
    ) -> tuple[TrainState, dict[str, Array]]:
        length = tokens.shape[1]
        weights = aggregation_weights(experience.mask, objective.aggregation, length)
        rows = _Micro(prompts, tokens, dataclasses.replace(experience, weights=weights))
        (loss, sums), total = gradients(state, rows)
        state, told = advance(state, tx, schedule, total)
        return state, {
            "loss": loss,
            "tokens": (prompts["segments"] > 0).sum() + experience.mask.sum(),
            **told,
            **sums.means(),
        }

    return update


def _in_turn(rows: Any, prompts: int, parts: int) -> Any:
    """Every leaf [P * k, ...] as [parts, P / parts * k, ...]; prompt p with its k rows goes to part p % parts."""

    def split(x: Array) -> Array:
        x = x.reshape(prompts // parts, parts, x.shape[0] // prompts, *x.shape[1:])
        return x.swapaxes(0, 1).reshape(parts, -1, *x.shape[3:])

    return jax.tree.map(split, rows)
