"""Rewards by name, and several as one."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from chestx_jax.data.chat import target, user_text
from chestx_jax.rewards import RewardError, RewardMixture, StepReward, Stepwise, columns_of, reward
from chestx_jax.rewards.mixture import Component
from chestx_jax.rewards.signature import Together
from tests.evaluation.samples import anomaly, binary

HERE = "tests.rewards.test_mixture"
OURS = dict(function="format", weight=1.0, clip=(0.0, 1.0), schedule=())


def length(completions, **columns):
    """A user's reward: the number of words; not for open questions."""
    return [
        None if task == "anomaly" else len(text.split())
        for text, task in zip(completions, columns["task"], strict=True)
    ]


def stepwise(completions, **columns):
    """A user's reward in the step form."""
    return [Stepwise(1.0, [StepReward(0, 3, -1.0)]) for _ in completions]


def make_reward_fn(name):
    """As RadEval's: a function of completions and the column `ground_truth`, whatever else is given."""

    def reward_fn(completions, ground_truth, **kwargs):
        return [float(text == truth) for text, truth in zip(completions, ground_truth, strict=True)]

    reward_fn.__name__ = name
    return reward_fn


exact = make_reward_fn("exact")


def short(completions, **columns):
    return [0.0]


def nan(completions, **columns):
    return [float("nan") for _ in completions]


def text(completions, **columns):
    return ["good" for _ in completions]


def array(completions, **columns):
    return np.zeros(len(completions))


SAMPLES = [binary(1), binary(2, answer="B"), anomaly(3, "edema")]
PROMPTS = [user_text(sample, "reason") for sample in SAMPLES]


def mix(*, step=0, completions=("a", "b c", "d"), samples=SAMPLES, **rewards):
    config = ConfigDict({name: OURS | settings for name, settings in rewards.items()})
    prompts = [user_text(sample, "reason") for sample in samples]
    return RewardMixture.from_config(config)(step, prompts, list(completions), columns_of(samples))


def test_the_right_answer_with_the_gold_reasoning_earns_all() -> None:
    rewards = {name: dict(function=name) for name in ("format", "outcome", "process")}
    found = mix(completions=[target(sample, "reason") for sample in SAMPLES], **rewards)
    assert list(found.components) == ["format", "outcome", "process"]
    assert found.total.tolist() == [3, 3, 3]
    assert found.steps["format"] == (None, None, None)
    assert [len(steps) for steps in found.steps["process"]] == [2, 2, 2]


def test_weights_clips_and_none() -> None:
    found = mix(
        words=dict(function=f"{HERE}.length", weight=0.5, clip=(0.0, 1.5)),
        steps=dict(function=f"{HERE}.stepwise", weight=2.0),
    )
    np.testing.assert_array_equal(found.components["words"], [1, 1.5, np.nan])
    np.testing.assert_array_equal(found.total, [2.5, 2.75, 2])
    assert found.steps["steps"] == ((StepReward(0, 3, -1.0),),) * 3
    metrics = found.metrics()
    assert metrics["reward/mean"] == pytest.approx(found.total.mean())
    assert metrics["reward/std"] == pytest.approx(found.total.std())
    assert metrics["reward/words/mean"] == pytest.approx(1.25)
    assert metrics["reward/words/std"] == pytest.approx(0.25)
    assert metrics["reward/words/applies"] == pytest.approx(2 / 3)
    assert metrics["reward/words/weight"] == 0.5


def test_a_reward_that_applies_to_none_has_no_mean() -> None:
    found = mix(samples=[SAMPLES[2]], completions=["a"], words=dict(function=f"{HERE}.length", clip=(0, 9)))
    assert found.total.tolist() == [0]
    assert found.metrics()["reward/words/applies"] == 0
    assert "reward/words/mean" not in found.metrics()


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (10, 0.0), (60, 1.0), (110, 2.0), (999, 2.0)])
def test_a_schedule_is_piecewise_linear(step: int, weight: float) -> None:
    ramp = dict(function=f"{HERE}.stepwise", weight=2.0, schedule=((10, 0.0), (110, 1.0)))
    found = mix(step=step, ramp=ramp)
    assert found.weights["ramp"] == pytest.approx(weight)
    assert found.total == pytest.approx(np.full(3, weight))


def test_a_reward_of_weight_0_is_logged() -> None:
    found = mix(steps=dict(function=f"{HERE}.stepwise", weight=0.0))
    assert found.total.tolist() == [0, 0, 0]
    assert found.metrics()["reward/steps/mean"] == 1


def test_without_completions_only_what_processes_compute_together_is_called() -> None:
    calls = []

    class Ours(Together):
        def __call__(self, *, completions, **columns):
            calls.append(len(completions))
            return []

    def alone(completions, **columns):
        return [max(map(len, completions))] * len(completions)

    both = RewardMixture(tuple(Component(f.__class__.__name__, f, 1.0, (0, 1)) for f in (Ours(), alone)))
    found = both(0, [], [], columns_of([]))
    assert calls == [0] and found.total.shape == (0,)
    assert {name: values.shape for name, values in found.components.items()} == {
        "Ours": (0,),
        "function": (0,),
    }


def test_a_function_with_radevals_signature() -> None:
    samples = [dataclasses.replace(sample, extra={"ground_truth": "b c"}) for sample in SAMPLES]
    assert mix(samples=samples, exact=dict(function=f"{HERE}.exact")).total.tolist() == [0, 1, 0]


def test_columns_are_the_samples_fields() -> None:
    samples = [
        dataclasses.replace(SAMPLES[0], extra={"both": 1, "one": 2}),
        dataclasses.replace(SAMPLES[1], extra={"both": 3}),
    ]
    columns = columns_of(samples)
    assert columns["answer"] == ["A", "B"]
    assert columns["both"] == [1, 3]
    assert "one" not in columns


def test_a_reward_by_name() -> None:
    assert reward(f"{HERE}.length")(completions=["a b"], task=["binary"]) == [2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fromat", "none of format, outcome, process"),
        ("no_such_package.reward", "cannot import 'no_such_package'"),
        (f"{HERE}.missing", "has no 'missing'"),
        (f"{HERE}.HERE", "is a str"),
    ],
)
def test_a_reward_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        reward(name)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("short", r"'mine' returned 1 values for 3 completions"),
        ("nan", r"'mine': completion 0: nan"),
        ("text", r"'mine': completion 0: 'good'"),
        ("array", r"'mine' returned a ndarray"),
    ],
)
def test_wrong_returns_are_errors(function: str, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        mix(mine=dict(function=f"{HERE}.{function}"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(wieght=1.0), "differs in wieght"),
        (dict(clip=(1.0, 0.0)), "'mine': field 'clip'"),
        (dict(schedule=((5, 0.0), (5, 1.0))), "'mine': field 'schedule'"),
    ],
)
def test_a_wrong_config_is_an_error(settings, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        mix(mine=settings)


def test_no_reward_is_an_error() -> None:
    with pytest.raises(RewardError, match="there is none"):
        mix()
