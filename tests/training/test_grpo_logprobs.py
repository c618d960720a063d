"""Chunked log-probabilities and entropy are the plain ones, masked before use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax.rollout import Sampling
from chestx_jax.rollout.sampling import EXCLUDED, permitted, scale, threshold
from chestx_jax.training.grpo.logprobs import token_logprobs

RNG = np.random.default_rng(0)
BATCH, LENGTH, WIDTH, VOCABULARY = 3, 11, 8, 17
HIDDEN = jnp.asarray(RNG.normal(size=(BATCH, LENGTH, WIDTH)), jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(WIDTH, VOCABULARY)), jnp.float32)
TOKENS = jnp.asarray(RNG.integers(2, VOCABULARY, (BATCH, LENGTH)))
MASK = jnp.asarray(np.arange(LENGTH) < np.array([[11], [4], [0]]))
WEIGHTS = jnp.asarray(RNG.normal(size=(2, BATCH, LENGTH)), jnp.float32)
SETTINGS = [
    Sampling(),
    Sampling(0.6, (0, 1)),
    Sampling(1.2, (0,), top_p=0.9),
    Sampling(1.0, top_k=5, min_p=0.02),
]


def plain(head: jax.Array, sampling: Sampling) -> tuple[jax.Array, jax.Array]:
    logits = HIDDEN @ head
    scaled = scale(logits, sampling)
    passes = (scaled >= threshold(scaled, sampling)) | (jnp.arange(VOCABULARY) == TOKENS[..., None])
    passes &= permitted(VOCABULARY, sampling)
    logprobs = jax.nn.log_softmax(jnp.where(passes, scaled, EXCLUDED))
    picked = jnp.take_along_axis(logprobs, TOKENS[..., None], axis=-1)[..., 0]
    every = jax.nn.log_softmax(logits / (sampling.temperature or 1), axis=-1)
    entropy = -(jnp.exp(every) * every).sum(-1)
    return jnp.where(MASK, picked, 0), jnp.where(MASK, entropy, 0)


def chunked(head: jax.Array, sampling: Sampling, chunk: int, hidden: jax.Array = HIDDEN):
    return token_logprobs(lambda h: h @ head, hidden, TOKENS, MASK, sampling, chunk)


def weighed(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    return (WEIGHTS[0] * pair[0] + WEIGHTS[1] * pair[1]).sum()


@pytest.mark.parametrize("sampling", SETTINGS, ids=["greedy", "temperature", "top_p", "top_k_min_p"])
@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_every_chunk_size_gives_the_plain_values_and_gradients(sampling: Sampling, chunk: int) -> None:
    for ours, theirs in zip(chunked(HEAD, sampling, chunk), plain(HEAD, sampling), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    ours = jax.grad(lambda head: weighed(chunked(head, sampling, chunk)))(HEAD)
    theirs = jax.grad(lambda head: weighed(plain(head, sampling)))(HEAD)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_token_once_drawn_keeps_a_finite_logprob() -> None:
    """Though the last bit of a logit has put it outside the nucleus, and a forbidden token lies far above all."""
    logits = jnp.log(jnp.asarray([[[0.5, 0.5 - 1e-6, 1e-6, 1e30]]]))
    sampling = Sampling(1.0, (3,), top_p=0.5)
    for token, expected in ((0, 0.0), (1, np.log(0.5))):
        logprobs, _ = token_logprobs(
            lambda h: h, logits, jnp.asarray([[token]]), jnp.ones((1, 1), bool), sampling, 1
        )
        np.testing.assert_allclose(logprobs, [[expected]], atol=1e-5)


@pytest.mark.parametrize("rubbish", [np.nan, np.inf])
def test_what_stands_in_the_padding_reaches_no_value_and_no_gradient(rubbish: float) -> None:
    dirty = jnp.where(MASK[..., None], HIDDEN, rubbish)
    value, (to_head, to_hidden) = jax.value_and_grad(
        lambda head, hidden: weighed(chunked(head, SETTINGS[2], 4, hidden)), argnums=(0, 1)
    )(HEAD, dirty)
    np.testing.assert_allclose(value, weighed(chunked(HEAD, SETTINGS[2], 4)), rtol=1e-6)
    clean = jax.grad(lambda head: weighed(chunked(head, SETTINGS[2], 4)))(HEAD)
    np.testing.assert_allclose(to_head, clean, rtol=1e-4, atol=1e-6)
    assert not np.any(np.asarray(to_hidden)[~np.asarray(MASK)])


def test_the_full_logits_never_exist() -> None:
    """No array of [B, T, V] is anywhere in the traced program, forward or backward."""
    jaxpr = str(jax.make_jaxpr(jax.grad(lambda head: weighed(chunked(head, SETTINGS[1], 2))))(HEAD))
    assert "[3,2,17]" in jaxpr and "[3,11,17]" not in jaxpr and "[3,12,17]" not in jaxpr
    assert "[6,3,2,17]" not in jaxpr  # nor stacked for the backward pass
