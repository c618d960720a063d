"""Groups of continuations in one pass that reads each prompt once: the states and gradients of whole rows."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from chestx_jax.models.qwen2_vl import Qwen2VL, layers
from chestx_jax.models.qwen2_vl.continuation import continuation_hidden
from tests.models import cases

CASE = dataclasses.replace(cases.CASES[1], rows=cases.CASES[1].rows[:3])
GROUP, NEW = 2, 6
LENGTHS = np.array([6, 3, 1, 5, 2, 6])
MASK = np.arange(NEW) < LENGTHS[:, None]


@pytest.fixture(scope="module")
def model() -> Qwen2VL:
    return cases.build(CASE.config)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    shape = (len(CASE.rows) * GROUP, NEW)
    return np.random.default_rng(0).integers(cases.FIRST_TEXT_ID, CASE.config.vocab_size, shape)


def whole_rows(tokens: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Prompt and continuation in one row each, and where the states that predict the continuation are."""
    prompts = [row for row in cases.unpadded_rows(CASE) for _ in range(GROUP)]
    rows = [cases.extend(p, t[:n]) for p, t, n in zip(prompts, tokens, LENGTHS, strict=True)]
    places = np.array([len(p["tokens"]) for p in prompts])[:, None] - 1 + np.arange(NEW)
    batch = cases.pad_rows(rows, extra_tokens=NEW)
    del batch["loss_mask"]
    return batch, places


@pytest.mark.parametrize("side", ["left", "right"])
def test_states_and_gradients_are_those_of_whole_rows(model: Qwen2VL, tokens: np.ndarray, side: str) -> None:
    prompts = cases.pad_rows(cases.unpadded_rows(CASE), side)
    rows, places = whole_rows(tokens)
    graph, params = nnx.split(model)
    target = jnp.asarray(np.random.default_rng(1).normal(size=(*MASK.shape, CASE.config.hidden_size)))

    def ours(params):
        hidden = continuation_hidden(nnx.merge(graph, params), prompts, tokens, jnp.asarray(MASK))
        return jnp.where(MASK[..., None], hidden, 0)

    def theirs(params):
        hidden = nnx.merge(graph, params).hidden(rows)
        return jnp.where(MASK[..., None], jnp.take_along_axis(hidden, places[..., None], axis=1), 0)

    def run(states):
        def loss(params):
            hidden = states(params)
            return (hidden * target).sum(), hidden

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    (our_gradient, our_states), (their_gradient, their_states) = run(ours), run(theirs)
    np.testing.assert_allclose(our_states, their_states, atol=2e-5)
    for a, b in zip(jax.tree.leaves(our_gradient), jax.tree.leaves(their_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * (1 + np.abs(b).max()))


def test_tokens_off_the_mask_and_later_ones_change_nothing(model: Qwen2VL, tokens: np.ndarray) -> None:
    prompts = cases.pad_rows(cases.unpadded_rows(CASE))
    run = jax.jit(lambda tokens, mask: continuation_hidden(model, prompts, tokens, mask))
    states = run(tokens, MASK)
    np.testing.assert_array_equal(
        np.where(MASK[..., None], run(np.where(MASK, tokens, 99_999), MASK), 0)[MASK], states[MASK]
    )
    later = tokens.copy()
    later[:, 3:] = 11
    np.testing.assert_array_equal(run(later, MASK)[:, :4][MASK[:, :4]], states[:, :4][MASK[:, :4]])
    assert np.isfinite(states).all()


def test_rows_that_are_no_groups_are_an_error(model: Qwen2VL, tokens: np.ndarray) -> None:
    prompts = cases.pad_rows(cases.unpadded_rows(CASE))
    with pytest.raises(ValueError, match="5 rows"):
        continuation_hidden(model, prompts, tokens[:5], MASK[:5])


def test_long_groups_are_read_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same attention and gradients, whatever number of scores may exist at a time."""
    draw, prompts, group, tokens, seen = np.random.default_rng(0), 2, 4, 5, 6
    q, k, v = (draw.normal(size=(8, *shape)) for shape in ((4, tokens, 8), (2, 8, tokens), (2, tokens, 8)))
    pk, pv = draw.normal(size=(prompts, 2, 8, seen)), draw.normal(size=(prompts, 2, seen, 8))
    arrays = [jnp.asarray(x, jnp.float32) for x in (q, pk, pv, k, v)]
    real = np.arange(seen)[None, None] < np.array([4, 6])[:, None, None]
    causal = jnp.asarray(np.tril(np.ones((tokens, tokens), bool))[None].repeat(8, 0))

    def loss(most: int, *arrays: jax.Array) -> jax.Array:
        monkeypatch.setattr(layers, "SCORES", most)
        q, pk, pv, k, v = arrays
        return (layers.attend(q, (pk, pv, jnp.asarray(real)), (k, v, causal)) ** 2).sum()

    grad = jax.value_and_grad(loss, argnums=range(1, 6))
    whole = grad(2**28, *arrays)
    one_row = 4 * tokens * (seen + tokens)
    for rows in (2, 1):
        assert f"length={group // rows}" in str(jax.make_jaxpr(partial(loss, rows * one_row))(*arrays))
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), grad(rows * one_row, *arrays), whole
        )
