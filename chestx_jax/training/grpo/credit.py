"""From rewards to the advantage of every token, on the host."""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from chestx_jax.rewards import Rewards, StepReward
from chestx_jax.rollout import Completion, TokenSpans
from chestx_jax.training.grpo.advantages import ESTIMATORS, gdpo, step_advantages

Credit = Literal["scalar", "step"]
CREDITS = ("scalar", "step")
GDPO = "gdpo"
NAMES = (*ESTIMATORS, GDPO)
"""Estimators by the name that a config gives."""


def token_advantages(
    rewards: Rewards,
    completion: Completion,
    spans: TokenSpans,
    *,
    group_size: int,
    estimator: str,
    credit: Credit,
    first: int = 0,
) -> Float[np.ndarray, "R N"]:
    """The advantage of each token of the completions, 0 off the mask.

    "scalar": one number a completion, from the weighted sum of its rewards (the paper's). "step": the rewards
    that value steps are taken out of that sum, and each step's tokens get what their step is worth instead
    (`advantages.step_advantages`); tokens of no step (tags, the answer) keep the outcome's alone.

    Args:
      rewards: of the whole batch, of all processes.
      completion: of this process: its row r is row `first` + r of the rewards.
    """
    stepwise = _stepwise(rewards) if credit == "step" else ()
    whole = [name for name in rewards.components if name not in stepwise]
    own = range(first, first + len(completion))
    outcome = _outcome(rewards, whole, group_size, estimator)[own.start : own.stop]
    if not stepwise:
        return np.where(completion.mask, outcome[:, None], 0.0)
    steps = [_weighted_steps(rewards, row, stepwise) for row in own]
    width = max((len(values) for values in steps), default=0)
    shape = len(steps), max(width, 1)
    values, there, links = np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool)
    token_steps = np.full(completion.tokens.shape, -1, np.int32)
    for row, found in enumerate(steps):
        values[row, : len(found)] = [step.value for step in found]
        there[row, : len(found)] = True
        links[row, : len(found)] = [step.link for step in found]
        length = completion.lengths[row]
        token_steps[row, :length] = spans.token_steps(
            completion.tokens[row, :length], [(step.start, step.end) for step in found]
        )
    return step_advantages(outcome, values, there, links, token_steps, completion.mask, group_size)


def _stepwise(rewards: Rewards) -> tuple[str, ...]:
    """The rewards that value steps; one that weighs nothing has no say in which steps are links either."""
    return tuple(
        name
        for name, rows in rewards.steps.items()
        if rewards.weights[name] and any(row is not None for row in rows)
    )


def _outcome(rewards: Rewards, names: list[str], group_size: int, estimator: str) -> Float[np.ndarray, " R"]:
    components = np.stack([rewards.components[name] for name in names], axis=1)
    weights = np.array([rewards.weights[name] for name in names])
    if estimator == GDPO:
        return gdpo(components, weights, group_size)
    return ESTIMATORS[estimator](np.nan_to_num(components) @ weights, group_size)


def _weighted_steps(rewards: Rewards, row: int, names: tuple[str, ...]) -> tuple[StepReward, ...]:
    """The steps of one completion with the weighted sum of what the rewards say of them; a reward that does not
    apply to the completion says nothing."""
    given = [
        (rewards.weights[name], steps) for name in names if (steps := rewards.steps[name][row]) is not None
    ]
    if not given:
        return ()
    return tuple(
        replace(
            step,
            value=sum(weight * steps[i].value for weight, steps in given),
            link=any(steps[i].link for _, steps in given),
        )
        for i, step in enumerate(given[0][1])
    )
