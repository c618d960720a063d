"""Advantages: exact zeros, rewards that do not apply, and credit to the step that earned it."""

import numpy as np
import pytest

from chestx_jax.training.grpo import advantages
from chestx_jax.training.grpo.advantages import (
    ESTIMATORS,
    gdpo,
    group_normalised,
    min_returns,
    step_advantages,
)

NAN = np.nan


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
def test_a_group_without_spread_is_exactly_zero(estimator) -> None:
    """Eight rewards of 0.3 in float32: their mean is not 0.3, and 1e-8 / 1e-6 would be 0.03."""
    rewards = np.concatenate([np.full(8, 0.3, np.float32), np.linspace(0, 1, 8, dtype=np.float32)])
    got = estimator(rewards, 8)
    assert (got[:8] == 0).all() and (got[8:] != 0).all()
    np.testing.assert_array_equal(advantages.zero_spread(rewards, 8), [True, False])


def test_normalised_groups_have_mean_zero_and_spread_one() -> None:
    rewards = np.random.default_rng(0).normal(5, 2, 24)
    got = group_normalised(rewards, 6).reshape(4, 6)
    np.testing.assert_allclose(got.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(got.std(1, ddof=1), 1, rtol=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
def test_a_reward_that_does_not_apply_changes_nothing_for_the_others(estimator) -> None:
    got = estimator(np.array([1.0, NAN, 0.0, 0.5]), 4)
    assert got[1] == 0
    np.testing.assert_allclose(got[[0, 2, 3]], estimator(np.array([1.0, 0.0, 0.5]), 3))


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
@pytest.mark.parametrize("rewards", [[NAN, NAN, NAN], [NAN, 0.7, NAN]])
def test_with_nothing_to_compare_there_is_no_advantage(estimator, rewards: list[float]) -> None:
    np.testing.assert_array_equal(estimator(np.array(rewards), 3), 0)
    assert advantages.zero_spread(np.array(rewards), 3).all()


def test_rloo_compares_with_the_others() -> None:
    np.testing.assert_allclose(advantages.rloo(np.array([3.0, 0.0, 1.0]), 3), [2.5, -2.0, -0.5])


def test_gdpo_keeps_a_reward_of_narrow_spread_alive() -> None:
    """Rewards whose sum ranks the completions by the first alone: the second still decides between equals."""
    wide, narrow = np.array([0.0, 0.0, 100.0, 100.0]), np.array([0.01, 0.0, 0.01, 0.0])
    components = np.stack([wide, narrow], axis=1)
    got = gdpo(components, np.ones(2), 4)
    np.testing.assert_allclose(got[0], 0, atol=1e-3)
    np.testing.assert_allclose(got[2], -got[1], rtol=1e-3)
    np.testing.assert_allclose(got.std(ddof=1), 1, rtol=1e-5)
    one_applies = gdpo(np.array([[1.0, NAN], [0.0, NAN]]), np.ones(2), 2)
    assert one_applies[0] > 0 > one_applies[1]
    np.testing.assert_array_equal(gdpo(np.full((4, 2), 0.3), np.ones(2), 4), 0)


def test_rewards_that_make_no_groups_are_errors() -> None:
    with pytest.raises(ValueError, match="groups of 3"):
        group_normalised(np.zeros(4), 3)
    with pytest.raises(ValueError, match="weights"):
        gdpo(np.zeros((4, 2)), np.ones(3), 2)


def test_a_step_is_worth_the_least_reward_from_there_on() -> None:
    rewards = np.array([[1.0, -1.0, 0.5, 1.0], [0.2, 0.4, 9.0, 0.3]])
    mask = np.array([[True, True, True, True], [True, True, False, True]])
    expected = [[-1.0, -1.0, 0.5, 1.0], [0.2, 0.3, NAN, 0.3]]
    np.testing.assert_array_equal(min_returns(rewards, mask, mask), expected)
    one = np.ones((1, 2), bool)
    np.testing.assert_array_equal(min_returns(np.array([[1.0, NAN]]), one, one), [[1.0, NAN]])


def test_a_step_that_is_no_link_is_not_held_against_those_before_it() -> None:
    rewards, there = np.array([[1.0, -0.5, 0.5, -0.5]]), np.ones((1, 4), bool)
    links = np.array([[True, False, True, False]])
    np.testing.assert_array_equal(min_returns(rewards, there, links), [[0.5, -0.5, 0.5, -0.5]])
    false_later = np.array([[1.0, -0.5, -1.0, -0.5]])
    np.testing.assert_array_equal(min_returns(false_later, there, links), [[-1.0, -1.0, -1.0, -0.5]])


# Two completions of one prompt, right in the end both: the first begins with a false step and is longer.
STEPS = np.array([[-1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
STEP_MASK = np.array([[True, True, True], [True, True, False]])
TOKEN_STEPS = np.array([[0, 0, 1, -1, 2, -1, -1], [-1, 0, 1, 1, -1, -1, -1]])
RESPONSE = np.array([[True] * 6 + [False], [True] * 5 + [False] * 2])


def credited(outcome: np.ndarray, steps: np.ndarray = STEPS, mask: np.ndarray = STEP_MASK) -> np.ndarray:
    return step_advantages(outcome, steps, mask, mask, TOKEN_STEPS, RESPONSE, 2)


def test_a_false_step_is_blamed_and_a_true_one_is_not() -> None:
    got = credited(np.zeros(2))
    assert (got[0, :2] < 0).all()
    assert got[0, 2] == 0  # as true as the other completion's second step
    assert got[0, 4] > 0  # says something true where the other has ended
    assert got[1, 1] > 0 and (got[1, 2:4] == 0).all()
    above = np.array([-1.0, 0.0, 0.5, 1.0, 0.0])  # each step against its place
    expected = above / (np.sqrt(np.mean(above**2)) + 1e-6)
    np.testing.assert_allclose(got[0, [0, 2, 4]], expected[:3])
    np.testing.assert_allclose(got[1, [1, 2]], expected[3:])
    assert (got[(TOKEN_STEPS < 0) | ~RESPONSE] == 0).all()


def test_being_late_earns_nothing_and_idle_words_at_the_end_cost() -> None:
    """Every completion has the same steps, false first: the returns rise, the advantages do not. Then one goes on
    where the other has ended."""
    rising = np.array([[-1.0, -0.5, 1.0]] * 2)
    everywhere = np.ones((2, 3), bool)
    assert (credited(np.zeros(2), rising, everywhere) == 0).all()
    idle = np.where(STEP_MASK, [[-1.0, -1.0, -0.5]] * 2, 0.0)
    got = credited(np.zeros(2), idle)
    assert got[0, 4] < 0 and (got[:, :4] == 0).all()


def test_the_outcome_lies_on_every_token_of_the_response() -> None:
    outcome = np.array([0.5, -0.5])
    got = credited(outcome)
    plain = credited(np.zeros(2))
    np.testing.assert_allclose(got - plain, np.where(RESPONSE, outcome[:, None], 0), atol=1e-12)


def test_steps_all_alike_or_none_at_all_leave_the_outcome_alone() -> None:
    outcome = np.array([0.5, -0.5])
    expected = np.where(RESPONSE, outcome[:, None], 0)
    alike = credited(outcome, np.full((2, 3), 0.3, np.float32), np.ones((2, 3), bool))
    np.testing.assert_array_equal(alike, expected)
    none = np.full_like(TOKEN_STEPS, -1)
    got = step_advantages(
        outcome, np.zeros((2, 0)), np.zeros((2, 0), bool), np.zeros((2, 0), bool), none, RESPONSE, 2
    )
    np.testing.assert_array_equal(got, expected)


def test_a_token_of_a_step_without_a_reward_is_an_error() -> None:
    with pytest.raises(ValueError, match="step 2"):
        credited(np.zeros(2), STEPS[:, :2], STEP_MASK[:, :2])


def test_groups_do_not_mix() -> None:
    """Another prompt's steps, however good, change nothing."""
    alone = credited(np.zeros(2))
    both = step_advantages(
        np.zeros(4),
        np.concatenate([STEPS, 7 * STEPS]),
        np.tile(STEP_MASK, (2, 1)),
        np.tile(STEP_MASK, (2, 1)),
        np.tile(TOKEN_STEPS, (2, 1)),
        np.tile(RESPONSE, (2, 1)),
        2,
    )
    np.testing.assert_array_equal(both[:2], alone)
