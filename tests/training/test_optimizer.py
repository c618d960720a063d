"""Learning-rate schedule and weight decay as configured."""

import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax.training.optimizer import learning_rate, make_optimizer
from configs import common


def test_warm_up_is_linear_then_a_cosine_to_the_final_share() -> None:
    rate = learning_rate(common.optimizer(peak=1.0, warmup=0.1, final=0.2), steps=100)
    values = np.array([rate(step) for step in range(101)])
    np.testing.assert_allclose(values[:10], np.arange(1, 11) / 10, rtol=1e-5)
    np.testing.assert_allclose(values[55], 0.6, rtol=1e-5)  # half way down from 1 to 0.2
    np.testing.assert_allclose(values[100], 0.2, rtol=1e-5)
    assert np.all(np.diff(values[10:]) <= 0)


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate(common.optimizer(peak=0.5, warmup=0.0), steps=10)(0) == 0.5
    assert learning_rate(common.optimizer(peak=0.5, warmup=0.0, schedule="constant"), 10)(9) == 0.5


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="'stairs'"):
        learning_rate(common.optimizer(schedule="stairs"), steps=10)


def test_weights_decay_but_scales_and_biases_do_not() -> None:
    params = {
        "norm": {"scale": jnp.ones((2, 3))},
        "fc": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones((2, 3))},
    }
    tx = make_optimizer(common.optimizer(peak=0.1, warmup=0.0, weight_decay=0.5), steps=10)
    zero = {
        "norm": {"scale": jnp.zeros((2, 3))},
        "fc": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros((2, 3))},
    }
    updates, _ = tx.update(zero, tx.init(params), params)
    assert not np.any(updates["norm"]["scale"]) and not np.any(updates["fc"]["bias"])
    np.testing.assert_allclose(updates["fc"]["kernel"], -0.05, rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    """Adam hides a common scale, so the clipped first moment is looked at."""
    params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    gradients = {"a": jnp.full(3, 30.0), "b": jnp.full(4, 40.0)}
    tx = make_optimizer(common.optimizer(clip=1.0), steps=10)
    _, state = tx.update(gradients, tx.init(params), params)
    moment = state.inner[1][0].mu
    norm = np.sqrt(sum(float((m / 0.1) ** 2 @ np.ones(len(m))) for m in moment.values()))
    np.testing.assert_allclose(norm, 1.0, rtol=1e-5)
