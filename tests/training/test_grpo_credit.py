"""From rewards to tokens: whose steps count."""

import numpy as np

from chestx_jax.rewards import Rewards, StepReward
from chestx_jax.rollout import Completion, TokenSpans
from chestx_jax.training.grpo.credit import token_advantages

TEXTS = ("ab", "ab")  # a token a letter, a step a letter


def advantages(rewards: Rewards) -> np.ndarray:
    completion = Completion(
        samples=(None, None),
        texts=TEXTS,
        tokens=np.array([[0, 1], [0, 1]], np.int32),
        mask=np.ones((2, 2), bool),
        logprobs=np.zeros((2, 2), np.float32),
        ended=np.ones(2, bool),
    )
    spans = TokenSpans((b"a", b"b"))
    return token_advantages(rewards, completion, spans, group_size=2, estimator="group", credit="step")


def rewards(weight_of_rules: float) -> Rewards:
    """A model finds the second step of the first completion idle; the rules take it for a link."""
    model = (
        (StepReward(0, 1, 1.0), StepReward(1, 2, -0.5, link=False)),
        (StepReward(0, 1, 1.0), StepReward(1, 2, 1.0)),
    )
    rules = ((StepReward(0, 1, 0.0), StepReward(1, 2, 0.0)),) * 2
    zeros = np.zeros(2)
    return Rewards(
        zeros,
        {"outcome": zeros, "rules": zeros, "model": zeros},
        {"outcome": (None, None), "rules": rules, "model": model},
        {"outcome": 1.0, "rules": weight_of_rules, "model": 1.0},
    )


def test_a_reward_of_weight_zero_has_no_say_in_what_a_link_is() -> None:
    got = advantages(rewards(0.0))
    assert (got[:, 0] == 0).all()  # both first steps are true, and nobody who counts blames one of them
    assert got[0, 1] < 0 < got[1, 1]
    blamed = advantages(rewards(1.0))
    assert blamed[0, 0] < 0 < blamed[1, 0]
