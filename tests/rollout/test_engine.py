"""The engine: the same completions for any batches and devices, one compilation a shape, trainer's numbers."""

from functools import partial

import jax
import jax.monitoring
import numpy as np
import pytest
from flax import nnx

from chestx_jax.data import Processor, Sample
from chestx_jax.data.example import Bucket
from chestx_jax.data.pipeline import Source, ordered_batches
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.models.qwen2_vl.continuation import continuation_hidden
from chestx_jax.parallel import make_mesh
from chestx_jax.rollout import Completion, Engine, Sampling, prompt_buckets
from chestx_jax.rollout.decode import prefilled
from chestx_jax.training.grpo.logprobs import token_logprobs

GROUP, NEW = 2, 10
BUCKETS = (Bucket(192, 16), Bucket(192, 32))
WARM = Sampling(1.1)
FILTERED = Sampling(0.9, top_k=150, top_p=0.95, min_p=0.001)


def mesh_of(devices: int, tensor: int = 1) -> jax.sharding.Mesh:
    return make_mesh({"replica": 1, "fsdp": -1, "tensor": tensor}, jax.devices()[:devices])


def complete_all(
    engine: Engine, model: Qwen2VL, samples: list[Sample], batch_size: int, seed: int = 0
) -> tuple[dict[str, list[str]], list[Completion]]:
    """Texts by sample, and the completions batch by batch."""
    source = Source("samples", samples, "reason")
    number = {sample.id: i for i, sample in enumerate(samples)}
    batches = ordered_batches(source, engine.processor, buckets=BUCKETS, batch_size=batch_size, target=False)
    found: dict[str, list[str]] = {}
    completions = []
    with jax.set_mesh(engine.mesh):
        for batch in batches:
            ids = np.array([number[id] for id in batch.ids])
            completions.append(engine.complete(model, batch, jax.random.key(seed), ids))
            for sample, text in zip(completions[-1].samples, completions[-1].texts, strict=True):
                found.setdefault(sample.id, []).append(text)
    return found, completions


@pytest.fixture(scope="module")
def whole(processor: Processor, policy: Qwen2VL, samples: list[Sample]):
    engine = Engine(processor, mesh_of(1), NEW, WARM, GROUP)
    return complete_all(engine, policy, samples, batch_size=8)


@pytest.mark.parametrize(("devices", "tensor", "batch_size"), [(1, 1, 3), (8, 1, 8), (4, 2, 4)])
def test_a_seed_gives_the_same_completions_for_any_batches_and_devices(
    processor, policy, samples, whole, devices: int, tensor: int, batch_size: int
) -> None:
    engine = Engine(processor, mesh_of(devices, tensor), NEW, WARM, GROUP)
    assert complete_all(engine, policy, samples, batch_size)[0] == whole[0]


def test_completions_come_in_groups_and_without_filling(processor, samples, whole) -> None:
    texts, completions = whole
    assert sum(len(c) for c in completions) == len(samples) * GROUP
    assert {id: len(group) for id, group in texts.items()} == {s.id: GROUP for s in samples}
    assert len({text for group in texts.values() for text in group}) == len(samples) * GROUP
    for c in completions:
        assert [s.id for s in c.samples[::GROUP]] == [s.id for s in c.samples[1::GROUP]]
        lengths = c.lengths
        np.testing.assert_array_equal(c.mask, np.arange(NEW) < lengths[:, None])
        last = c.tokens[np.arange(len(c)), lengths - 1]
        np.testing.assert_array_equal(c.ended, np.isin(last, processor.eos_ids))
        assert (lengths[~c.ended] == NEW).all()
        assert (c.logprobs[c.mask] < 0).all() and (c.logprobs[~c.mask] == 0).all()


def test_special_tokens_and_ids_of_no_token_are_never_written(processor, policy, whole) -> None:
    forbidden = processor.forbidden_ids(policy.config.vocab_size)
    assert processor.image_token_id in forbidden and policy.config.vocab_size - 1 in forbidden
    for c in whole[1]:
        assert not np.isin(c.tokens[c.mask], forbidden).any()


def test_prompts_are_padded_to_what_the_attention_takes(processor, samples) -> None:
    longest, most_patches = processor.lengths(samples, mode="reason", target=False).max(axis=0)
    for attention, tokens, patches in (("xla", 64, 1), ("splash", 128, 128)):
        buckets = prompt_buckets(processor, samples, "reason", attention)
        assert {bucket.tokens % tokens for bucket in buckets} == {0}
        assert {bucket.patches % patches for bucket in buckets} == {0}
        assert 0 <= max(bucket.tokens for bucket in buckets) - longest < tokens
        assert 0 <= max(bucket.patches for bucket in buckets) - most_patches < patches


def test_another_seed_writes_something_else_and_compiles_nothing(processor, policy, samples) -> None:
    """Nor do other weights, nor the same shapes again: after the first batches, every compilation is counted."""
    engine = Engine(processor, mesh_of(1), NEW, WARM, GROUP)
    first, _ = complete_all(engine, policy, samples, batch_size=8)
    compiled: list[str] = []

    def listen(event: str, _: float, **__: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        second, _ = complete_all(engine, policy, samples, batch_size=8, seed=1)
        other = nnx.clone(policy)
        other.text.norm.scale.set_value(1.5 * other.text.norm.scale[...])
        before = len(compiled)  # the line above may compile
        third, _ = complete_all(engine, other, samples, batch_size=8)
        assert len(compiled) == before
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert first != second and first != third


@pytest.mark.parametrize("sampling", [WARM, FILTERED], ids=["temperature", "filters"])
def test_the_trainer_computes_the_same_logprobs(processor, policy, samples, sampling: Sampling) -> None:
    """From one pass over groups, within 1e-4 in float32."""
    engine = Engine(processor, mesh_of(1), NEW, sampling, GROUP)
    source = Source("samples", samples, "reason")
    (batch,) = ordered_batches(source, processor, buckets=BUCKETS[1:], batch_size=7, target=False)
    drawn = engine.complete(policy, batch, jax.random.key(3), np.arange(len(batch.samples)))

    @partial(jax.jit, static_argnums=0)
    def trainer(sampling, model, prompts, tokens, mask):
        hidden = continuation_hidden(model, prompts, tokens, mask)
        return token_logprobs(model.logits, hidden, tokens, mask, sampling, 4)

    logprobs, entropy = trainer(engine.sampling_for(policy), policy, batch.arrays, drawn.tokens, drawn.mask)
    np.testing.assert_allclose(logprobs, drawn.logprobs, atol=1e-4)
    assert (np.asarray(entropy)[drawn.mask] > 0).all()
    unfiltered = Sampling(1.0, engine.sampling_for(policy).forbidden_ids)
    assert (
        np.abs(trainer(unfiltered, policy, batch.arrays, drawn.tokens, drawn.mask)[0] - logprobs).max() > 1e-2
    )


def test_each_device_holds_the_cache_of_its_own_rows(processor, policy, samples) -> None:
    source = Source("samples", samples, "reason")
    mesh = mesh_of(8, tensor=2)
    (batch, *_) = ordered_batches(source, processor, buckets=BUCKETS, batch_size=4, target=False)
    with jax.set_mesh(mesh):
        _, cache = jax.jit(partial(prefilled, group_size=2, slots=30))(policy, batch.arrays)
    for x, rows in ((cache.prompt_k, 4), (cache.prompt_v, 4), (cache.k, 8), (cache.v, 8)):
        assert x.shape[1] == rows and x.addressable_shards[0].data.shape[1] == rows // 4
