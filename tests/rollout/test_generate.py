"""Generation: against the model itself, and the promises of `generate`."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from chestx_jax.models.lora import LANGUAGE_LINEARS, add_lora
from chestx_jax.models.qwen2_vl import Qwen2VL, one_cpu
from chestx_jax.rollout import Sampling, generate
from chestx_jax.rollout.decode import _generate
from chestx_jax.rollout.sampling import sample, sampling_logprobs
from tests.models import cases

CASE = dataclasses.replace(cases.CASES[2], rows=(*cases.CASES[2].rows, (3, (2, 2), 2)))
N = 12


@pytest.fixture(scope="module")
def model():
    return cases.build(CASE.config)


@pytest.fixture(scope="module", params=["left", "right"])
def batch(request):
    return cases.pad_rows(cases.unpadded_rows(CASE), request.param)


@pytest.fixture(scope="module")
def right():
    return cases.pad_rows(cases.unpadded_rows(CASE))


def test_decode_equals_teacher_forcing(model, batch):
    """Logits from prefill and cached decoding are those of one pass over prompt and continuation."""
    rows = cases.unpadded_rows(CASE)
    given = np.random.default_rng(0).integers(cases.FIRST_TEXT_ID, CASE.config.vocab_size, (len(rows), 6))
    longer = [cases.extend(row, more) for row, more in zip(rows, given, strict=True)]
    whole = np.asarray(cases.run(model, cases.pad_rows(longer)))
    decode = jax.jit(Qwen2VL.decode)
    logits, cache = jax.jit(Qwen2VL.prefill, static_argnums=2)(model, batch, 6)
    for i in range(7):
        for b, row in enumerate(rows):
            np.testing.assert_allclose(logits[b], whole[b, len(row["tokens"]) - 1 + i], atol=1e-5)
        if i < 6:
            logits, cache = decode(model, jnp.asarray(given[:, i]), cache)


@pytest.mark.parametrize("tied", [True, False])
def test_one_cpu_decodes_alike(tied):
    """In a loop over turned layers and unrolled: groups of two, an adapter in the layers, the head tied or not."""
    config = dataclasses.replace(CASE.config, tie_word_embeddings=tied)
    model = cases.build(config)
    add_lora(model, 2, 8.0, LANGUAGE_LINEARS, nnx.Rngs(1))
    model.text.layers.mlp.up_proj.lora_b.set_value(
        0.1 * jax.random.normal(jax.random.key(0), model.text.layers.mlp.up_proj.lora_b.shape)
    )
    prompts = cases.pad_rows(cases.unpadded_rows(CASE), "left")
    same = partial(np.testing.assert_allclose, atol=1e-5)
    _, cache = jax.jit(Qwen2VL.prefill, static_argnums=(2, 3))(model, prompts, 3, 2)
    apart = jax.jit(one_cpu.unroll_cache)(cache)
    looped = jax.jit(lambda model, *rest: one_cpu.decode(model, one_cpu.turned(model.text.layers), *rest))
    unrolled = jax.jit(lambda model, *rest: one_cpu.decode_unrolled(model, one_cpu.unroll(model.text), *rest))
    for tokens in np.random.default_rng(0).integers(17, CASE.config.vocab_size, (3, len(cache.position))):
        expected = jax.jit(Qwen2VL.decode)(model, tokens, cache)
        jax.tree.map(same, looped(model, tokens, cache), expected)
        logits, cache = expected
        got, apart = unrolled(model, tokens, apart)
        jax.tree.map(same, (got, apart), (logits, jax.jit(one_cpu.unroll_cache)(cache)))
    assert not model.text.layers.attn.q_proj.turned  # the copies were


def test_large_layers_generate_alike(model, right, monkeypatch):
    """As layers of 8 MiB and more: the same tokens, and log-probabilities up to rounding."""
    options = dict(max_new_tokens=N, eos_ids=(), sampling=Sampling(1.0), key=jax.random.key(2), group_size=2)
    expected = generate(model, right, **options)
    decode, traced = one_cpu.decode_unrolled, []
    monkeypatch.setattr(one_cpu, "UNROLLED_BYTES", 1)
    monkeypatch.setattr(one_cpu, "decode_unrolled", lambda *args: traced.append(args) or decode(*args))
    jax.clear_caches()
    got = generate(model, right, **options)
    assert traced
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_allclose(got.logprobs, expected.logprobs, atol=1e-5)
    monkeypatch.undo()
    jax.clear_caches()


def test_a_row_ends_at_its_end_token_and_the_loop_with_the_last_row(model, right):
    free = generate(model, right, max_new_tokens=N, eos_ids=())
    assert np.asarray(free.mask).all()
    tokens = np.asarray(free.tokens)
    eos = (int(tokens[0, 3]), int(tokens[1, 5]))
    out = generate(model, right, max_new_tokens=N, eos_ids=eos)
    for row, expected, mask, logprobs in zip(out.tokens, tokens, out.mask, out.logprobs, strict=True):
        hits = np.flatnonzero(np.isin(expected, eos))
        length = hits[0] + 1 if len(hits) else N
        np.testing.assert_array_equal(mask, np.arange(N) < length)
        np.testing.assert_array_equal(row[:length], expected[:length])
        assert (np.asarray(logprobs[length:]) == 0).all()
        assert (np.asarray(row[length:]) == eos[0]).all()


def test_all_rows_ended_stops_the_loop(model, right):
    """With every token an end token, one is drawn; the rest of the buffer is untouched."""
    out = generate(model, right, max_new_tokens=N, eos_ids=tuple(range(CASE.config.vocab_size)))
    np.testing.assert_array_equal(np.asarray(out.mask).sum(1), 1)


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_forbidden_tokens_are_never_drawn(model, right, temperature):
    allowed = {17, 40, 99}
    forbidden = tuple(set(range(CASE.config.vocab_size)) - allowed)
    out = generate(
        model,
        right,
        max_new_tokens=N,
        eos_ids=(),
        sampling=Sampling(temperature, forbidden),
        key=jax.random.key(1),
    )
    assert set(np.asarray(out.tokens).ravel().tolist()) <= allowed
    assert np.isfinite(out.logprobs).all()


def test_rows_do_not_depend_on_their_neighbours(model, right):
    options = dict(max_new_tokens=N, eos_ids=(), sampling=Sampling(1.0), key=jax.random.key(2))
    whole = generate(model, right, **options)
    for start in (0, 2):
        part = {name: value[start : start + 2] for name, value in right.items()}
        out = generate(model, part, row_ids=jnp.arange(start, start + 2), **options)
        np.testing.assert_array_equal(out.tokens, whole.tokens[start : start + 2])
        np.testing.assert_allclose(out.logprobs, whole.logprobs[start : start + 2], atol=1e-5)


def test_a_group_equals_repeated_prompts(model, right):
    options = dict(max_new_tokens=N, eos_ids=(1,), sampling=Sampling(1.0), key=jax.random.key(3))
    grouped = generate(model, right, group_size=3, **options)
    repeated = generate(model, {k: np.repeat(v, 3, axis=0) for k, v in right.items()}, **options)
    np.testing.assert_array_equal(grouped.tokens, repeated.tokens)
    np.testing.assert_array_equal(grouped.mask, repeated.mask)
    assert len({tuple(row) for row in np.asarray(grouped.tokens).tolist()}) == grouped.tokens.shape[0]


def test_logprobs_are_those_of_a_teacher_forced_pass(model):
    """Of the tokens drawn at temperature 0.7, with tokens forbidden: what an RL learner recomputes."""
    row = cases.unpadded_rows(CASE)[1]
    prompt = cases.pad_rows([row], extra_tokens=3)
    out = generate(
        model,
        prompt,
        max_new_tokens=N,
        eos_ids=(),
        sampling=Sampling(0.7, (4, 5)),
        key=jax.random.key(4),
    )
    tokens = np.asarray(out.tokens)[0]
    longer = cases.extend(row, tokens)
    logits = np.array(cases.run(model, cases.pad_rows([longer], extra_tokens=0)))[0, -N - 1 : -1]
    logits[:, [4, 5]] = -np.inf
    expected = jax.nn.log_softmax(logits / 0.7, axis=-1)[np.arange(N), tokens]
    np.testing.assert_allclose(out.logprobs[0], expected, atol=1e-4)


def test_frequencies_follow_the_distribution():
    logits = jnp.tile(jnp.asarray([[0.0, 1.0, 2.0, 5.0]]), (4000, 1))
    keys = jax.random.split(jax.random.key(0), 4000)
    tokens, logprobs = sample(logits, keys, Sampling(temperature=2.0, forbidden_ids=(3,)))
    expected = np.exp([0, 0.5, 1.0]) / np.exp([0, 0.5, 1.0]).sum()
    np.testing.assert_allclose(np.bincount(tokens, minlength=4)[:3] / 4000, expected, atol=0.03)
    np.testing.assert_allclose(logprobs, np.log(expected)[tokens], atol=1e-5)
    excluded = sampling_logprobs(logits[:1], Sampling(forbidden_ids=(3,)))[0, 3]
    assert np.isfinite(excluded) and np.exp(excluded) == 0


def test_settings_that_make_no_sense_are_errors(model, right):
    options = dict(max_new_tokens=2, eos_ids=())
    with pytest.raises(ValueError, match="key"):
        generate(model, right, sampling=Sampling(1.0), **options)
    with pytest.raises(ValueError, match="row_ids"):
        generate(model, right, row_ids=jnp.arange(3), **options)
    with pytest.raises(ValueError, match="group_size"):
        generate(model, right, group_size=0, **options)


def test_new_weights_and_keys_do_not_compile_again(model, right):
    options = dict(max_new_tokens=2, eos_ids=(), sampling=Sampling(1.0))
    generate(model, right, key=jax.random.key(0), **options)
    compiled = _generate._cache_size()
    other = cases.build(CASE.config, cases.numpy_weights(CASE.config, seed=1))
    generate(other, right, key=jax.random.key(1), **options)
    assert _generate._cache_size() == compiled
