"""Losses keep what is in the padding out, add up over micro-batches, and bound what they say they bound."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax.training.grpo import losses
from chestx_jax.training.grpo.objective import Experience, LossSums, Objective, grpo_loss

RNG = np.random.default_rng(3)
SHAPE = (6, 9)
LENGTHS = np.array([9, 4, 0, 7, 1, 9])
MASK = jnp.asarray(np.arange(9) < LENGTHS[:, None])
LOGPROBS, OLD, SAMPLER, REFERENCE = (jnp.asarray(-RNG.exponential(1, SHAPE), jnp.float32) for _ in range(4))
ENTROPY = jnp.asarray(RNG.exponential(1, SHAPE), jnp.float32)
ADVANTAGES = jnp.asarray(RNG.normal(size=SHAPE), jnp.float32)
OBJECTIVES = {
    "paper": Objective(),
    "gspo": Objective(ratio="sequence", dual_clip=None, aggregation="sequence_mean_token_mean"),
    "dr_grpo": Objective(aggregation="constant", kl="k1"),
    "k2": Objective(aggregation="sequence_mean_token_sum", kl="k2"),
}


def experience(objective: Objective, mask: jax.Array = MASK) -> Experience:
    weights = losses.aggregation_weights(mask, objective.aggregation, 12)
    return Experience(mask, ADVANTAGES, OLD, SAMPLER, REFERENCE, weights)


def loss_and_gradients(objective, logprobs, entropy, known):
    return jax.value_and_grad(grpo_loss, argnums=(1, 2), has_aux=True)(objective, logprobs, entropy, known)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -1e30])
def test_what_stands_in_the_padding_does_not_matter(name: str, rubbish: float) -> None:
    objective = OBJECTIVES[name]

    def fill(x: jax.Array) -> jax.Array:
        return jnp.where(MASK, x, rubbish)

    known = experience(objective)
    dirty = known.replace(
        advantages=fill(known.advantages),
        old_logprobs=fill(known.old_logprobs),
        sampler_logprobs=fill(known.sampler_logprobs),
        reference_logprobs=fill(known.reference_logprobs),
    )
    clean = loss_and_gradients(objective, LOGPROBS, ENTROPY, known)
    got = loss_and_gradients(objective, fill(LOGPROBS), fill(ENTROPY), dirty)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert np.isfinite(jax.tree.leaves(clean)[0])
    for gradient in got[1]:
        assert not np.any(np.asarray(gradient)[~np.asarray(MASK)])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_add_up_to_the_batch(name: str) -> None:
    """Loss, gradient and metrics, though the parts hold 20, 3 and 9 tokens."""
    objective, known = OBJECTIVES[name], experience(OBJECTIVES[name])
    (whole, sums), (gradient, _) = loss_and_gradients(objective, LOGPROBS, ENTROPY, known)
    total, parts, gradients = 0.0, LossSums.zero(), []
    for rows in (slice(0, 4), slice(4, 5), slice(5, 6)):
        part = jax.tree.map(lambda x, rows=rows: x[rows], known)
        (loss, more), (g, _) = loss_and_gradients(objective, LOGPROBS[rows], ENTROPY[rows], part)
        total, parts = total + loss, parts + more
        gradients.append(g)
    np.testing.assert_allclose(total, whole, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate(gradients), gradient, atol=1e-7)
    for field, value in parts.means().items():
        np.testing.assert_allclose(value, sums.means()[field], rtol=1e-5, err_msg=field)


@pytest.mark.parametrize("how", ["token_mean", "sequence_mean_token_mean"])
def test_means_weigh_one_in_all_and_nothing_off_the_mask(how: losses.Aggregation) -> None:
    weights = losses.aggregation_weights(MASK, how, 12)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    assert not np.any(np.asarray(weights)[~np.asarray(MASK)])
    if how == "sequence_mean_token_mean":
        np.testing.assert_allclose(weights.sum(1), (LENGTHS > 0) / 5, rtol=1e-6)


@pytest.mark.parametrize(
    "how", ["token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum", "constant"]
)
def test_a_batch_without_tokens_has_no_loss(how: losses.Aggregation) -> None:
    objective = Objective(aggregation=how)
    known = experience(objective, jnp.zeros_like(MASK))
    (loss, sums), gradients = loss_and_gradients(objective, LOGPROBS, ENTROPY, known)
    assert loss == 0 and not any(np.any(np.asarray(g)) for g in gradients)
    assert all(value == 0 for value in sums.means().values())


def test_at_the_weights_that_sampled_the_gradient_is_that_of_reinforce() -> None:
    objective = dataclasses.replace(OBJECTIVES["paper"], kl_weight=0, entropy_weight=0, importance_cap=None)
    known = experience(objective)
    _, (gradient, _) = loss_and_gradients(objective, OLD, ENTROPY, known)
    np.testing.assert_allclose(gradient, -ADVANTAGES * known.weights, rtol=1e-6)


def test_metrics_of_the_ratio_and_of_the_samplers_gap() -> None:
    sums = grpo_loss(OBJECTIVES["paper"], LOGPROBS, ENTROPY, experience(OBJECTIVES["paper"]))[1]
    means, inside = sums.means(), np.asarray(MASK)
    gap = np.abs(OLD - SAMPLER)[inside]
    np.testing.assert_allclose(means["sampler_gap"], gap.mean(), rtol=1e-5)
    np.testing.assert_allclose(means["sampler_gap_max"], gap.max(), rtol=1e-5)
    ratio = np.exp(LOGPROBS - OLD)[inside]
    np.testing.assert_allclose(means["ratio"], ratio.mean(), rtol=1e-5)
    np.testing.assert_allclose(means["ratio_max"], ratio.max(), rtol=1e-5)
    np.testing.assert_allclose(means["entropy"], np.asarray(ENTROPY)[inside].mean(), rtol=1e-5)
    assert sums.tokens == LENGTHS.sum()


def test_importance_weights_are_the_ratio_up_to_the_cap_and_carry_no_gradient() -> None:
    weights = losses.importance_weights(OLD, SAMPLER, MASK, 1.5)
    expected = np.minimum(np.exp(OLD - SAMPLER), 1.5)
    np.testing.assert_allclose(np.where(MASK, weights, 0), np.where(MASK, expected, 0), rtol=1e-6)
    assert (expected[np.asarray(MASK)] == 1.5).any() and (expected[np.asarray(MASK)] < 1.5).any()
    gradient = jax.grad(lambda x: losses.importance_weights(x, SAMPLER, MASK, 1.5).sum())(OLD)
    assert not np.any(np.asarray(gradient))


def test_overlong_responses_are_left_out_or_punished_softly() -> None:
    ended = jnp.asarray([True, False, True, True, True, False])
    kept = losses.drop_overlong(MASK, ended)
    np.testing.assert_array_equal(kept.sum(1), np.where(ended, LENGTHS, 0))
    penalty = losses.overlong_penalty(jnp.asarray([0, 80, 85, 90, 100, 120]), longest=100, buffer=20)
    np.testing.assert_allclose(penalty, [0, 0, -0.25, -0.5, -1, -1])
    with pytest.raises(ValueError, match="buffer"):
        losses.overlong_penalty(jnp.asarray([3]), longest=10, buffer=11)


@pytest.mark.parametrize(
    ("field", "value"),
    [("ratio", "word"), ("clip_low", 0.0), ("clip_high", -0.1), ("dual_clip", 1.0), ("importance_cap", 0.5)],
)
def test_objectives_that_make_no_sense_are_errors(field: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=field):
        Objective(**{field: value})


def test_unknown_names_and_a_missing_reference_are_errors() -> None:
    with pytest.raises(ValueError, match="'mean'"):
        losses.aggregation_weights(MASK, "mean", 12)
    with pytest.raises(ValueError, match="'k4'"):
        losses.kl_estimate(LOGPROBS, REFERENCE, MASK, "k4")
    known = experience(Objective()).replace(reference_logprobs=None)
    with pytest.raises(ValueError, match="reference_logprobs"):
        grpo_loss(Objective(), LOGPROBS, ENTROPY, known)
