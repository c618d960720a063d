"""Losses, gradients and advantages are those of verl 0.9.1 and TRL 1.16.0 (tests/golden/make_grpo.py)."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax.training.grpo import advantages, losses
from chestx_jax.training.grpo.objective import Experience, Objective, grpo_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "grpo.npz")
HORIZON = 16
AGGREGATIONS = {
    "token-mean": "token_mean",
    "seq-mean-token-mean": "sequence_mean_token_mean",
    "seq-mean-token-sum": "sequence_mean_token_sum",
    "seq-mean-token-sum-norm": "constant",
}
CLIPS = {"clip": (0.2, 0.2), "clip_higher": (0.2, 0.28)}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def case(name: str) -> dict[str, jax.Array]:
    return {
        key: jnp.asarray(GOLDEN[f"{name}/{key}"])
        for key in ("logprobs", "old", "reference", "advantages", "mask", "importance")
    }


def experience(x: dict[str, jax.Array], aggregation: str, **changes) -> Experience:
    weights = losses.aggregation_weights(x["mask"], aggregation, HORIZON)
    fields = {"sampler_logprobs": x["old"], "reference_logprobs": x["reference"], **changes}
    return Experience(
        mask=x["mask"], advantages=x["advantages"], old_logprobs=x["old"], weights=weights, **fields
    )


def check(name: str, loss, at: jax.Array) -> None:
    value, gradient = jax.value_and_grad(loss)(at)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, GOLDEN[f"{name}/loss"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}/gradient"], rtol=0, atol=1e-6)


def test_the_hard_case_is_hard() -> None:
    """Ratio beyond 3 with A < 0, k3 beyond 10 and a log-ratio beyond 20, a fully masked row."""
    x = case("hard")
    inside, ratio = x["mask"], jnp.exp(x["logprobs"] - x["old"])
    gap = x["reference"] - x["logprobs"]
    assert (inside & (ratio > 3) & (x["advantages"] < 0)).any()
    assert (inside & (jnp.exp(gap) - gap - 1 > 10) & (gap < 20)).any() and (inside & (gap > 20)).any()
    assert (inside & (jnp.abs(x["logprobs"] - x["old"]) > 20)).any()
    assert (~inside).all(axis=1).any()


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("kind", ["vanilla", "gspo"])
@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_policy_loss_is_verls(kind: str, clip: str, mode: str) -> None:
    x, (low, high) = case("hard"), CLIPS[clip]
    objective = Objective(
        ratio="token" if kind == "vanilla" else "sequence",
        clip_low=low,
        clip_high=high,
        dual_clip=3.0 if kind == "vanilla" else None,
        kl_weight=0,
        entropy_weight=0,
        importance_cap=None,
    )
    known = experience(x, AGGREGATIONS[mode], reference_logprobs=None)

    def loss(logprobs: jax.Array) -> jax.Array:
        return grpo_loss(objective, logprobs, jnp.zeros_like(logprobs), known)[0]

    check(f"verl/{kind}/{clip}/{mode}", loss, x["logprobs"])
    means = grpo_loss(objective, x["logprobs"], jnp.zeros_like(x["old"]), known)[1].means()
    for name in ("clipped", "dual_clipped"):
        np.testing.assert_allclose(means[name], GOLDEN[f"verl/{kind}/{clip}/{name}"], atol=1e-6)


@pytest.mark.parametrize("clip", CLIPS)
def test_importance_weights_multiply_the_policy_loss_as_in_verl(clip: str) -> None:
    x, (low, high) = case("hard"), CLIPS[clip]
    objective = Objective(
        clip_low=low, clip_high=high, kl_weight=0, entropy_weight=0, importance_cap=float("inf")
    )
    known = experience(x, "token_mean", sampler_logprobs=x["old"] - jnp.log(x["importance"]))

    def loss(logprobs: jax.Array) -> jax.Array:
        return grpo_loss(objective, logprobs, jnp.zeros_like(logprobs), known)[0]

    check(f"verl/importance/{clip}", loss, x["logprobs"])


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_divergence_is_verls(estimator: losses.Estimator) -> None:
    x = case("hard")
    weights = losses.aggregation_weights(x["mask"], "token_mean", HORIZON)

    def loss(logprobs: jax.Array) -> jax.Array:
        kl = losses.kl_estimate(logprobs, x["reference"], x["mask"], estimator)
        return losses.weighted_sum(kl, weights)

    check(f"verl/{estimator}", loss, x["logprobs"])


def test_the_papers_loss_is_verls_down_to_the_logits() -> None:
    """Policy - 1e-3 entropy + 1e-3 k3, gradient through the softmax."""
    x = case("plain")
    targets = jnp.asarray(GOLDEN["entropy/targets"])

    def loss(logits: jax.Array) -> jax.Array:
        every = jax.nn.log_softmax(logits, axis=-1)
        logprobs = jnp.take_along_axis(every, targets[..., None], axis=-1)[..., 0]
        entropy = -(jnp.exp(every) * every).sum(-1)
        return grpo_loss(Objective(), logprobs, entropy, experience(x, "token_mean"))[0]

    check("verl_plain/total", loss, jnp.asarray(GOLDEN["entropy/logits"]))


@pytest.mark.parametrize(
    ("kind", "aggregation"),
    [
        ("bnpo/token", "token_mean"),
        ("grpo/token", "sequence_mean_token_mean"),
        ("dr_grpo/token", "constant"),
        ("grpo/sequence", "sequence_mean_token_mean"),
    ],
)
def test_loss_is_trls_where_no_clamp_is_active(kind: str, aggregation: str) -> None:
    """With delta = 3 for the dual clip, beta 1e-3 and its bias correction off."""
    x = case("plain")
    sequence = kind.endswith("sequence")
    objective = Objective(
        ratio="sequence" if sequence else "token",
        clip_high=0.28,
        dual_clip=None if sequence else 3.0,
        entropy_weight=0,
        importance_cap=None,
    )

    def loss(logprobs: jax.Array) -> jax.Array:
        return grpo_loss(objective, logprobs, jnp.zeros_like(logprobs), experience(x, aggregation))[0]

    check(f"trl/{kind}", loss, x["logprobs"])


@pytest.mark.parametrize("group_size", [4, 1])
@pytest.mark.parametrize("estimator", ["group", "dr_grpo", "rloo"])
def test_advantages_are_verls(estimator: str, group_size: int) -> None:
    rewards = GOLDEN["advantages/components"] @ GOLDEN["advantages/component_weights"]
    groups = {4: "fours", 1: "ones"}[group_size]
    ours = advantages.ESTIMATORS[estimator](rewards, group_size)
    np.testing.assert_allclose(ours, GOLDEN[f"advantages/{groups}/{estimator}"], rtol=0, atol=1e-6)


def test_gdpo_is_verls() -> None:
    """Which computes it in float32."""
    ours = advantages.gdpo(GOLDEN["advantages/components"], GOLDEN["advantages/component_weights"], 4)
    np.testing.assert_allclose(ours, GOLDEN["advantages/fours/gdpo"], rtol=0, atol=5e-6)
    assert (ours[4:8] == 0).all()
