"""The model against recorded outputs of transformers (tests/golden/make_qwen2_vl.py); needs no torch."""

from pathlib import Path

import jax
import numpy as np
import pytest

from chestx_jax.rollout import Sampling, generate
from tests.models import cases

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen2_vl.npz"


@pytest.fixture(autouse=True, scope="module")
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module", params=cases.CASES, ids=cases.CASE_IDS)
def setting(request):
    """Case, its golden arrays, batch, and model."""
    case = request.param
    with np.load(GOLDEN) as file:
        golden = {key.partition("/")[2]: file[key] for key in file if key.startswith(case.name + "/")}
    weights, batch = cases.numpy_weights(case.config), cases.make_batch(case)
    np.testing.assert_allclose(
        cases.checksum(weights, batch),
        golden["checksum"],
        rtol=1e-9,
        atol=1e-6,
        err_msg="the seeded inputs have changed: run python -m tests.golden.make_qwen2_vl",
    )
    return case, golden, batch, cases.build(case.config, weights)


def test_logits_and_every_gradient(setting):
    _, golden, batch, model = setting
    logits, gradients = cases.logits_and_gradients(model, batch)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[batch["segments"] > 0], golden["logits"], rtol=0, atol=1e-4)
    for path, expected in zip(sorted(gradients), golden["gradients"], strict=True):
        gap = np.sqrt(np.mean(np.square(cases.fingerprint(path, gradients[path]) - expected)[1:]))
        assert gap <= 1e-4 * expected[0], (path, gap, expected[0])


def test_greedy_tokens(setting):
    case, golden, batch, model = setting
    forbidden = (case.config.image_token_id, case.config.video_token_id)
    new_tokens = golden["greedy"].shape[1]
    out = generate(
        model, batch, max_new_tokens=new_tokens, eos_ids=(), sampling=Sampling(forbidden_ids=forbidden)
    )
    np.testing.assert_array_equal(out.tokens, golden["greedy"])


def test_positions(setting):
    _, golden, batch, _ = setting
    if "positions" in golden:  # transformers makes none for text alone
        np.testing.assert_array_equal(batch["positions"], golden["positions"])
