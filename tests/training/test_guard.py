"""Updates that are skipped on the device, and those that are not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chestx_jax.training.guard import WARMUP, advance, guarded
from chestx_jax.training.state import TrainState

SCHEDULE = optax.constant_schedule(0.1)


def start(tx: optax.GradientTransformation) -> TrainState:
    params = {"w": jnp.arange(4.0), "b": jnp.ones((2,), jnp.bfloat16)}
    return TrainState(jnp.int32(0), params, {}, tx.init(params))


def gradients(size: float) -> dict[str, jax.Array]:
    return {"w": jnp.full(4, size), "b": jnp.full(2, size, jnp.bfloat16)}


def same(one: object, other: object) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_but_the_counts(bad: float) -> None:
    tx = guarded(optax.adam(0.1), spike=0.0)
    step = jax.jit(lambda state, grads: advance(state, tx, SCHEDULE, grads))
    state, told = step(start(tx), gradients(1.0))
    assert (told["skipped"], told["skipped_in_row"]) == (0, 0)
    poisoned = gradients(1.0)
    poisoned["w"] = poisoned["w"].at[2].set(bad)
    after, told = step(state, poisoned)
    same(after.trainable, state.trainable)
    same(after.opt_state.inner, state.opt_state.inner)
    assert (told["skipped"], told["skipped_in_row"], after.step) == (1, 1, 2)
    again, told = step(after, poisoned)
    assert (told["skipped"], told["skipped_in_row"]) == (2, 2)
    good, told = step(again, gradients(1.0))
    assert (told["skipped"], told["skipped_in_row"]) == (2, 0)
    unbroken, _ = step(state, gradients(1.0))
    same(good.trainable, unbroken.trainable)


def test_what_is_let_through_is_what_the_optimizer_does_alone() -> None:
    tx, alone = guarded(optax.adam(0.1), spike=3.0), optax.adam(0.1)
    state, params = start(tx), start(tx).trainable
    other = alone.init(params)
    for size in (1.0, 0.5, 2.0):
        state, _ = advance(state, tx, SCHEDULE, gradients(size))
        updates, other = alone.update(gradients(size), other, params)
        params = optax.apply_updates(params, updates)
    same(state.trainable, params)


def test_a_spike_is_measured_against_the_mean_of_what_was_taken() -> None:
    tx = guarded(optax.sgd(0.1), spike=3.0)
    step = jax.jit(lambda state, grads: advance(state, tx, SCHEDULE, grads)[0])
    state = start(tx)
    for _ in range(WARMUP - 1):
        state = step(state, gradients(1.0))
    assert step(state, gradients(100.0)).opt_state.skipped == 0  # the mean is not trusted yet
    state = step(state, gradients(1.0))
    for _ in range(5):
        state = step(state, gradients(100.0))  # does not raise the mean
    assert state.opt_state.in_row == 5
    assert step(state, gradients(2.9)).opt_state.in_row == 0
    assert step(state, gradients(3.1)).opt_state.in_row == 6
