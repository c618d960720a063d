"""The step head: log-probabilities by chunks, and verdicts that see nothing behind their step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from chestx_jax.models import process_reward
from chestx_jax.models.process_reward import add_step_head, step_logits, token_logprobs
from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig, VisionConfig

TOKENS, STEPS = 12, 3


@pytest.fixture(scope="module")
def model() -> Qwen2VL:
    config = Qwen2VLConfig(
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=48,
        mrope_section=(1, 1, 2),
        vision=VisionConfig(depth=1, embed_dim=32, num_heads=2),
        rope_theta=10000.0,
        initializer_range=0.3,
    )
    model = Qwen2VL(config, rngs=nnx.Rngs(params=0))
    add_step_head(model)
    return model


@pytest.fixture
def batch() -> dict[str, jax.Array]:
    tokens = jax.random.randint(jax.random.key(0), (2, TOKENS), 0, 60)
    return {
        "tokens": tokens,
        "positions": jnp.broadcast_to(jnp.arange(TOKENS), (2, 3, TOKENS)),
        "segments": jnp.ones((2, TOKENS), jnp.int32),
        "patches": jnp.zeros((2, 0, 1176)),
        "patch_hw": jnp.zeros((2, 0, 2), jnp.int32),
        "patch_segments": jnp.zeros((2, 0), jnp.int32),
        "image_index": jnp.full((2, TOKENS), -1),
    }


IDS = jnp.array([[-1, -1, 0, 0, 0, 1, 1, 1, -1, 2, 2, -1], [-1, 0, 0, -1, -1, 1, -1, -1, -1, -1, -1, -1]])


def test_log_probabilities_do_not_depend_on_chunks(
    model: Qwen2VL, batch: dict[str, jax.Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_reward, "_CHUNK", 5)
    found = token_logprobs(model, model.hidden(batch), batch["tokens"])
    whole = jax.nn.log_softmax(model(batch))[:, :-1]
    wanted = jnp.take_along_axis(whole, batch["tokens"][:, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(found[:, 1:], wanted, rtol=1e-5, atol=1e-5)
    assert not found[:, 0].any()


def test_the_untrained_head_doubts_what_the_trunk_finds_unlikely(
    model: Qwen2VL, batch: dict[str, jax.Array]
) -> None:
    logits = step_logits(model, batch, IDS, STEPS)
    total = token_logprobs(model, model.hidden(batch), batch["tokens"])[0, 2:5].sum()
    np.testing.assert_allclose(logits[0, 0], [0.5 * total + 1, -0.5 * total - 1, 0], rtol=1e-4)


def test_a_verdict_sees_its_step_and_nothing_behind(model: Qwen2VL, batch: dict[str, jax.Array]) -> None:
    before = step_logits(model, batch, IDS, STEPS)
    changed = {**batch, "tokens": batch["tokens"].at[0, 7].add(1)}  # the last token of step 1
    after = step_logits(model, changed, IDS, STEPS)
    np.testing.assert_array_equal(before[0, 0], after[0, 0])
    assert not np.allclose(before[0, 1], after[0, 1])


def test_without_a_head_there_is_no_verdict(model: Qwen2VL, batch: dict[str, jax.Array]) -> None:
    plain = Qwen2VL(model.config, rngs=nnx.Rngs(params=0))
    with pytest.raises(ValueError, match="no step head"):
        step_logits(plain, batch, IDS, STEPS)
