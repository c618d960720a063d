"""Updates that must not be made are skipped on the device, so the host need not look before the next step."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from chestx_jax.training.state import TrainState

DECAY = 0.99  # of the running mean of gradient norms
WARMUP = 20  # updates before the mean is trusted


class GuardState(NamedTuple):
    """The optimizer's own state; the running mean of gradient norms of the `taken` updates; and how many were
    skipped, in all and up to now without one between."""

    inner: optax.OptState
    mean_norm: Float[Array, ""]
    taken: Int[Array, ""]
    skipped: Int[Array, ""]
    in_row: Int[Array, ""]


def guarded(inner: optax.GradientTransformation, spike: float) -> optax.GradientTransformation:
    """`inner`, but an update with a gradient norm that is not finite, or above `spike` x its running mean, changes
    nothing: parameters and the state of `inner` stay as they are.

    Args:
      spike: 0 lets every finite gradient pass. The mean is bias-corrected, decays by 0.99 an update, leaves skipped
        updates out, and is not asked before 20 were taken.
    """

    def init(params: Any) -> GuardState:
        zero = jnp.zeros((), jnp.int32)
        return GuardState(inner.init(params), jnp.zeros(()), zero, zero, zero)

    def update(gradients: Any, state: GuardState, params: Any = None) -> tuple[Any, GuardState]:
        norm = optax.tree.norm(gradients).astype(jnp.float32)
        good = jnp.isfinite(norm)
        if spike:
            mean = state.mean_norm / (1 - DECAY ** jnp.maximum(state.taken, 1))
            good &= (state.taken < WARMUP) | (norm <= spike * mean)
        updates, after = inner.update(gradients, state.inner, params)
        return jax.tree.map(lambda u: jnp.where(good, u, 0).astype(u.dtype), updates), GuardState(
            inner=jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state.inner),
            mean_norm=jnp.where(good, DECAY * state.mean_norm + (1 - DECAY) * norm, state.mean_norm),
            taken=state.taken + good,
            skipped=state.skipped + ~good,
            in_row=jnp.where(good, 0, state.in_row + 1),
        )

    return optax.GradientTransformation(init, update)


def advance(
    state: TrainState, tx: optax.GradientTransformation, schedule: optax.Schedule, gradients: Any
) -> tuple[TrainState, dict[str, Array]]:
    """One update, and what there is to tell about it. `tx` is guarded (`make_optimizer`).

    Moments that lie in the host's memory (`init_state`) are fetched for the update, all at once, and go back there.
    """
    fetched = jax.tree.map(partial(_move, space=jax.memory.Space.Device), state.opt_state)
    updates, opt_state = tx.update(gradients, fetched, state.trainable)
    metrics = {
        "grad_norm": optax.tree.norm(gradients),
        "learning_rate": schedule(state.step),
        "skipped": opt_state.skipped,
        "skipped_in_row": opt_state.in_row,
    }
    trainable = optax.apply_updates(state.trainable, updates)
    kept = jax.tree.map(lambda new, old: _move(new, jax.typeof(old).memory_space), opt_state, state.opt_state)
    return TrainState(state.step + 1, trainable, state.frozen, kept), metrics


def _move(leaf: Array, space: Any) -> Array:
    return leaf if jax.typeof(leaf).memory_space == space else jax.device_put(leaf, space)
