"""Filters keep what they say, and tokens are drawn as often as the filtered softmax says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from chestx_jax.rollout.sampling import EXCLUDED, Sampling, sample, sampling_logprobs

RNG = np.random.default_rng(0)
VOCABULARY = 60
LOGITS = jnp.asarray(RNG.normal(0, 2, (5, VOCABULARY)), jnp.float32)
SETTINGS = {
    "temperature": Sampling(0.7, forbidden_ids=(0, 7)),
    "top_k": Sampling(1.0, top_k=9),
    "top_p": Sampling(1.3, forbidden_ids=(3,), top_p=0.8),
    "min_p": Sampling(1.0, min_p=0.1),
    "all": Sampling(1.5, top_k=20, top_p=0.9, min_p=0.05),
}


def reference(row: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The distribution in float64, by sorting."""
    logits = row.astype(np.float64)
    logits[list(sampling.forbidden_ids)] = -np.inf
    probs = np.exp(logits / sampling.temperature)
    order = np.argsort(-probs)
    keep = np.ones(len(probs), bool)
    if sampling.top_k:
        keep[order[sampling.top_k :]] = False
    inside = np.where(keep, probs, 0) / probs[keep].sum()
    reached_before = np.cumsum(inside[order]) - inside[order]
    keep[order[reached_before >= sampling.top_p]] = False
    keep &= probs >= sampling.min_p * probs.max()
    return np.where(keep, probs, 0) / probs[keep].sum()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_distribution_is_the_filtered_softmax(name: str) -> None:
    got = sampling_logprobs(LOGITS, SETTINGS[name])
    assert np.isfinite(got).all()
    for ours, row in zip(np.exp(got), np.asarray(LOGITS), strict=True):
        np.testing.assert_allclose(ours, reference(row, SETTINGS[name]), atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_sampled_frequencies_match_the_softmax(name: str) -> None:
    """Chi-square over 20,000 draws; tokens that are expected less than five times are put together."""
    draws = 20_000
    keys = jax.random.split(jax.random.key(5), draws)
    tokens, logprobs = jax.jit(lambda k: sample(jnp.tile(LOGITS[:1], (draws, 1)), k, SETTINGS[name]))(keys)
    expected = draws * reference(np.asarray(LOGITS[0]), SETTINGS[name])
    seen = np.bincount(tokens, minlength=VOCABULARY)
    assert not seen[expected == 0].any()
    rare = expected < 5
    observed = np.append(seen[~rare], seen[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    present = wanted > 0
    assert scipy.stats.chisquare(observed[present], wanted[present]).pvalue > 1e-3
    np.testing.assert_allclose(logprobs, np.log(expected[tokens] / draws), atol=1e-5)


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.5, 0.500001, 0.9, 0.99])
def test_top_p_is_exact_at_its_edges_and_keeps_equals(top_p: float) -> None:
    """Halves and quarters are exact: 0.5 is reached by the first token alone, a little more needs both equals."""
    logits = jnp.log(jnp.asarray([[0.5, 0.25, 0.25, 0.0]]))
    kept = np.asarray(sampling_logprobs(logits, Sampling(1.0, top_p=top_p)) > EXCLUDED)
    np.testing.assert_array_equal(kept[0], [True, top_p > 0.5, top_p > 0.5, False])


def test_top_k_keeps_equals_and_any_sign() -> None:
    logits = jnp.asarray([[-3.0, -1.0, -2.0, -2.0, -50.0], [4.0, 0.5, -0.5, 2.0, 0.1]])
    kept = np.asarray(sampling_logprobs(logits, Sampling(1.0, top_k=2)) > EXCLUDED)
    np.testing.assert_array_equal(kept, [[False, True, True, True, False], [True, False, False, True, False]])


def test_greedy_takes_the_first_of_the_likeliest() -> None:
    logits = jnp.asarray([[0.0, 3.0, 1.0, 3.0], [2.0, -1.0, 2.0, 0.0]])
    tokens, logprobs = sample(logits, jax.random.split(jax.random.key(0), 2), Sampling(forbidden_ids=(0,)))
    np.testing.assert_array_equal(tokens, [1, 2])
    expected = jax.nn.log_softmax(logits.at[:, 0].set(-jnp.inf))[jnp.arange(2), tokens]
    np.testing.assert_allclose(logprobs, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("temperature", {"temperature": -1.0}),
        ("top_k", {"temperature": 1.0, "top_k": -1}),
        ("top_p", {"temperature": 1.0, "top_p": 0.0}),
        ("min_p", {"temperature": 1.0, "min_p": 1.0}),
        ("greedy", {"top_p": 0.9}),
    ],
)
def test_settings_that_make_no_sense_are_errors(field: str, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=field):
        Sampling(**options)
