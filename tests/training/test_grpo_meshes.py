"""One GRPO update on eight devices is that of one device: loss, gradients and metrics, in float32."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from chestx_jax.parallel import make_mesh, place, put_rows
from chestx_jax.rollout import Sampling
from chestx_jax.training.grpo.objective import Experience, Objective
from chestx_jax.training.grpo.update import make_update
from chestx_jax.training.guard import guarded
from chestx_jax.training.state import init_state, split_model
from tests.models import cases

CASE = cases.Case("meshes", cases.tiny_config(8, 2), cases.CASES[1].rows * 2)
GROUP, NEW, CHUNK = 4, 6, 4
TOLERANCE = 1e-5


def experience(config: Qwen2VLConfig) -> tuple[np.ndarray, Experience]:
    """Responses of several lengths, some of them far from what the policy would say now, so that ratios are clipped."""
    rng = np.random.default_rng(0)
    shape = len(CASE.rows) * GROUP, NEW
    mask = np.arange(NEW) < rng.integers(1, NEW + 1, shape[0])[:, None]
    likely = -np.log(config.vocab_size)

    def near(spread: float) -> np.ndarray:
        return np.where(mask, likely + spread * rng.normal(size=shape), 0).astype(np.float32)

    tokens = rng.integers(cases.FIRST_TEXT_ID, config.vocab_size, shape).astype(np.int32)
    return tokens, Experience(
        mask=mask,
        advantages=np.where(mask, rng.normal(size=shape), 0).astype(np.float32),
        old_logprobs=near(0.3),
        sampler_logprobs=near(0.3),
        reference_logprobs=near(0.3),
        weights=np.zeros(shape, np.float32),
    )


def updated(axes: tuple[int, int, int], accumulation: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metrics, and the gradient of each parameter: what a trace without memory keeps is the gradient."""
    count = int(np.prod(axes))
    spec = dict(zip(("replica", "fsdp", "tensor"), axes, strict=True))
    mesh = make_mesh(spec, jax.devices()[:count])
    with jax.set_mesh(mesh), jax.default_matmul_precision("highest"):
        model = cases.build(CASE.config)
        place(model, mesh)
        graphdef, params = split_model(model)
        tx = guarded(optax.trace(decay=0.0), spike=0)
        update = make_update(
            graphdef,
            tx,
            optax.constant_schedule(1.0),
            Objective(),
            Sampling(1.0),
            accumulation=accumulation,
            chunk=CHUNK,
            on_policy=False,
        )
        prompts = cases.pad_rows(cases.unpadded_rows(CASE))
        state = init_state(params, tx, lambda path: True, mesh)
        state, metrics = update(state, *put_rows(mesh, (prompts, *experience(CASE.config))))
    flat = jax.tree_util.tree_leaves_with_path(state.opt_state.inner.trace)
    gradients = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}
    return jax.tree.map(float, metrics), gradients


@pytest.fixture(scope="module")
def one_device() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return updated((1, 1, 1), 1)


@pytest.mark.parametrize(
    ("axes", "accumulation"), [((1, 8, 1), 1), ((1, 4, 2), 2), ((2, 2, 2), 1)], ids=["8x1", "4x2", "2x2x2"]
)
def test_any_mesh_gives_the_loss_and_the_gradients_of_one_device(
    one_device: tuple[dict[str, Any], dict[str, np.ndarray]], axes: tuple[int, int, int], accumulation: int
) -> None:
    metrics, gradients = updated(axes, accumulation)
    theirs, expected = one_device
    assert metrics == pytest.approx(theirs, rel=TOLERANCE, abs=TOLERANCE)
    assert theirs["clipped"] > 0 and theirs["kl"] > 0
    assert gradients.keys() == expected.keys()
    for path, gradient in expected.items():
        scale = min(1.0, np.abs(gradient).max())
        assert scale > 0, path
        np.testing.assert_allclose(gradients[path], gradient, rtol=0, atol=TOLERANCE * scale, err_msg=path)
