"""The chunked cross-entropy is the plain one, on the target tokens only."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chestx_jax.training.losses import TokenSums, chunked_cross_entropy

RNG = np.random.default_rng(0)
HIDDEN = jnp.asarray(RNG.normal(size=(3, 11, 8)), jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(8, 17)), jnp.float32)
TOKENS = jnp.asarray(RNG.integers(0, 17, (3, 11)))
MASK = jnp.asarray(RNG.random((3, 11)) < 0.5)


def plain(head: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss sum and count by optax, with all logits at once."""
    logits = (HIDDEN @ head)[:, :-1]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, TOKENS[:, 1:])
    return (losses * MASK[:, 1:]).sum(), MASK[:, 1:].sum()


def chunked(head: jax.Array, chunk: int) -> TokenSums:
    return chunked_cross_entropy(head, HIDDEN, TOKENS, MASK, chunk)


@pytest.mark.parametrize("chunk", [1, 3, 5, 10, 64])
def test_every_chunk_size_gives_the_plain_loss_and_gradient(chunk: int) -> None:
    loss, count = plain(HEAD)
    sums = chunked(HEAD, chunk)
    np.testing.assert_allclose(sums.loss, loss, rtol=1e-6)
    assert sums.count == count
    ours = jax.grad(lambda head: chunked(head, chunk).loss)(HEAD)
    theirs = jax.grad(lambda head: plain(head)[0])(HEAD)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_hits_are_counted_on_targets_only() -> None:
    guess = jnp.argmax((HIDDEN @ HEAD)[:, :-1], axis=-1)
    assert chunked(HEAD, 4).correct == ((guess == TOKENS[:, 1:]) & MASK[:, 1:]).sum()


def test_a_fully_masked_batch_gives_zero_and_finite_gradients() -> None:
    def loss(head: jax.Array) -> jax.Array:
        return chunked_cross_entropy(head, HIDDEN, TOKENS, jnp.zeros_like(MASK), 4).loss

    value, gradient = jax.value_and_grad(loss)(HEAD)
    assert value == 0 and not np.any(np.asarray(gradient))


def test_the_full_logits_never_exist() -> None:
    """Nothing of all tokens times the vocabulary is anywhere in the traced program, forward or backward."""
    jaxpr = str(jax.make_jaxpr(jax.grad(lambda head: chunked(head, 2).loss))(HEAD))
    assert "[6,17]" in jaxpr and "[33,17]" not in jaxpr and "[3,11,17]" not in jaxpr
