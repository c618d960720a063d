"""Live comparison with transformers' `Qwen2VLForConditionalGeneration`, float32 on the CPU."""

import json

import jax
import numpy as np
import pytest

from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from chestx_jax.rollout import Sampling, generate
from tests.models import cases

torch = pytest.importorskip("torch")
from tests.models import torch_qwen2_vl as reference  # noqa: E402

pytestmark = pytest.mark.parity
NEW_TOKENS = 64


@pytest.fixture(autouse=True, scope="module")
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def check(case: cases.Case, attention: str) -> None:
    weights = cases.numpy_weights(case.config)
    rows, batch = cases.unpadded_rows(case), cases.make_batch(case)
    theirs = reference.build_torch(case.config, weights, attention)
    expected = theirs(**reference.torch_inputs(rows, batch)).logits
    reference.torch_loss(expected, batch).backward()
    logits, gradients = cases.logits_and_gradients(cases.build(case.config, weights), batch)
    real = batch["segments"] > 0
    assert np.abs(logits - expected.detach().numpy())[real].max() <= 1e-4
    for path, grad in reference.torch_gradients(theirs, weights).items():
        gap, size = np.linalg.norm(gradients[path] - grad), np.linalg.norm(grad)
        assert gap <= 1e-4 * size, (path, gap, size)


@pytest.mark.parametrize("case", cases.CASES, ids=cases.CASE_IDS)
def test_logits_and_gradients(case):
    check(case, "eager")


def test_logits_and_gradients_with_torch_sdpa():
    check(cases.CASES[1], "sdpa")


@pytest.mark.parametrize("case", cases.CASES, ids=cases.CASE_IDS)
def test_greedy_tokens(case):
    weights = cases.numpy_weights(case.config)
    theirs = reference.build_torch(case.config, weights)
    out = generate(
        cases.build(case.config, weights),
        cases.make_batch(case),
        max_new_tokens=NEW_TOKENS,
        eos_ids=(),
        sampling=Sampling(forbidden_ids=(case.config.image_token_id, case.config.video_token_id)),
    )
    for row, tokens in zip(cases.unpadded_rows(case), np.asarray(out.tokens), strict=True):
        np.testing.assert_array_equal(tokens, reference.torch_greedy(theirs, row, NEW_TOKENS))


def test_positions_are_transformers():
    for case in cases.CASES:
        rows, batch = cases.unpadded_rows(case), cases.make_batch(case)
        inputs = reference.torch_inputs(rows, batch)
        if "image_grid_thw" not in inputs:
            continue
        inputs.pop("pixel_values")
        model = reference.build_torch(case.config, cases.numpy_weights(case.config))
        positions, _ = model.model.get_rope_index(**inputs)
        np.testing.assert_array_equal(positions.permute(1, 0, 2).numpy(), batch["positions"])


def test_bfloat16_agrees_mostly(capsys):
    """Printed, not gated: both round, in different places."""
    agree = total = 0
    for case in cases.CASES:
        weights = cases.numpy_weights(case.config)
        rows, batch = cases.unpadded_rows(case), cases.make_batch(case)
        theirs = reference.build_torch(case.config, weights).bfloat16()
        ours = cases.build(case.config, weights, dtype=jax.numpy.bfloat16, param_dtype=jax.numpy.bfloat16)
        with torch.no_grad():
            expected = theirs(**reference.torch_inputs(rows, batch)).logits.float().numpy()
        logits = np.asarray(cases.run(ours, batch))
        assert logits.dtype == np.float32 and np.isfinite(logits).all()
        real = batch["segments"] > 0
        agree += int((logits.argmax(-1) == expected.argmax(-1))[real].sum())
        total += int(real.sum())
    with capsys.disabled():
        print(f"\nbfloat16: next token agrees with torch's at {agree} of {total} positions")


@pytest.mark.parametrize("size", ["2b", "7b"])
def test_config_round_trip_through_transformers(shared_data, size, tmp_path):
    """Ours -> flat file -> transformers -> its own layout -> ours, and transformers reads both alike."""
    published = json.loads((shared_data / "qwen2vl" / f"qwen2-vl-{size}" / "config.json").read_text())
    config = Qwen2VLConfig.from_hf(published)
    theirs = reference.HFConfig(**config.to_hf())
    theirs.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "text_config" in saved
    assert Qwen2VLConfig.from_hf(saved) == config
    original = reference.HFConfig(**published)
    for field in ("text_config", "vision_config"):
        ours, expected = getattr(theirs, field).to_dict(), getattr(original, field).to_dict()
        differing = {key for key in expected if ours.get(key) != expected[key]}
        assert differing <= {"dtype", "transformers_version", "_name_or_path"}, differing
    assert theirs.tie_word_embeddings == original.tie_word_embeddings
