"""Rewards to advantages, on the host in float64.

Rows come in groups: row p * group_size + g is completion g of prompt p, as `rollout.generate` orders them. A
reward that is NaN does not apply: it takes no part in the group's statistics, and its advantage is 0. A group
whose rewards are all equal has an advantage of exactly 0, decided on the rewards themselves: in float32, eight
rewards of 0.3 differ from their own mean and would be blown up by the division.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

EPS = 1e-6  # verl's; TRL has 1e-4

Rewards = Float[np.ndarray, " B"]


def group_normalised(rewards: Rewards, group_size: int, eps: float = EPS) -> Rewards:
    """(r - mean) / (std + eps) over the group, std with one degree of freedom less (DeepSeekMath, arXiv
    2402.03300, section 4.1.2). A group of one has mean 0 and std 1."""
    groups = _groups(rewards, group_size)
    return _zero_without_spread(groups, _centred(groups) / (_std(groups) + eps)).reshape(-1)


def dr_grpo(rewards: Rewards, group_size: int) -> Rewards:
    """r - mean (Dr. GRPO, arXiv 2503.20783): hard and easy prompts weigh as their spread. A group of one keeps
    its reward."""
    groups = _groups(rewards, group_size)
    return _zero_without_spread(groups, _centred(groups)).reshape(-1)


def rloo(rewards: Rewards, group_size: int) -> Rewards:
    """r - mean of the others (RLOO, arXiv 2402.14740). A group of one keeps its reward."""
    groups = _groups(rewards, group_size)
    known = (~np.isnan(groups)).sum(axis=1, keepdims=True)
    return _zero_without_spread(groups, _centred(groups) * known / np.maximum(known - 1, 1)).reshape(-1)


ESTIMATORS: dict[str, Callable[[Rewards, int], Rewards]] = {
    "group": group_normalised,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
}


def gdpo(
    components: Float[np.ndarray, "B K"],
    weights: Float[np.ndarray, " K"],
    group_size: int,
    eps: float = EPS,
) -> Rewards:
    """Every reward normalised over its group by itself, then weighted and summed, then scaled to unit spread over
    the batch (GDPO, arXiv 2601.05242): a reward of wide spread does not drown the others.

    The batch's mean is not subtracted: it is 0 already, and a group without spread stays at exactly 0.
    """
    if components.shape[1:] != weights.shape:
        raise ValueError(f"weights: {weights.shape[0]} for {components.shape[1]} rewards")
    parts = [group_normalised(column, group_size, eps) for column in components.T]
    total = np.stack(parts, axis=1) @ np.asarray(weights, np.float64)
    return total / (total.std(ddof=1) + eps) if len(total) > 1 else total


def zero_spread(rewards: Rewards, group_size: int) -> Bool[np.ndarray, " P"]:
    """Which groups teach nothing, for their rewards are all equal (or too few apply)."""
    return _without_spread(_groups(rewards, group_size))[:, 0]


def min_returns(
    step_rewards: Float[np.ndarray, "B S"],
    step_mask: Bool[np.ndarray, "B S"],
    links: Bool[np.ndarray, "B S"],
) -> Float[np.ndarray, "B S"]:
    """What a step is worth: the least of its reward and those of the links after it (PURE, arXiv 2504.15275,
    equation 5); NaN where there is no step or its reward does not apply.

    A step after the worst one is not blamed for it; a step before it is, for it led there. Steps that are no links
    (`rewards.StepReward`) are not held against those before them.
    """
    known = step_mask & ~np.isnan(step_rewards)
    chain = np.where(known & links, step_rewards, np.inf)
    from_here = np.minimum.accumulate(chain[:, ::-1], axis=1)[:, ::-1]
    return np.where(known, np.minimum(step_rewards, from_here), np.nan)


def step_advantages(
    outcome: Rewards,
    step_rewards: Float[np.ndarray, "B S"],
    step_mask: Bool[np.ndarray, "B S"],
    links: Bool[np.ndarray, "B S"],
    token_steps: Int[np.ndarray, "B T"],
    response_mask: Bool[np.ndarray, "B T"],
    group_size: int,
    eps: float = EPS,
) -> Float[np.ndarray, "B T"]:
    """Advantages token by token: the outcome's on all of the response, and on the tokens of a step the step's.

    A step's return (`min_returns`) is held against the returns of the group's steps at the same place, where a
    completion that has ended counts as 0: it says nothing true and nothing false. Then a group's steps are scaled
    to unit spread. GRPO's process supervision (arXiv 2402.03300, section 4.1.3) holds a step against all steps of
    the group instead. But a minimum over what is to come rises towards the end whatever is said, so that late steps
    would earn by being late: trained that way, models went on until they were cut.

    Args:
      outcome: advantages of whole completions, from one of the functions above.
      step_rewards: reward of each step, weighted already; anything off `step_mask`.
      step_mask: which steps are there, from the left.
      links: which of them the steps before are blamed for.
      token_steps: the step that each token belongs to, -1 for none.

    Raises:
      ValueError: a token belongs to a step that `step_rewards` has no column for.
    """
    steps = step_rewards.shape[1]
    if token_steps.max(initial=-1) >= steps:
        raise ValueError(f"token_steps: names step {token_steps.max()}, but there are rewards for {steps}")
    returns = np.where(step_mask, min_returns(step_rewards, step_mask, links), 0.0)
    groups = returns.reshape(len(outcome) // group_size, group_size, steps)
    above = _zero_without_spread(groups, _centred(groups))
    there = step_mask.reshape(above.shape)
    count = np.maximum(there.sum(axis=(1, 2), keepdims=True), 1)
    spread = np.sqrt(np.square(above).sum(axis=(1, 2), where=there, keepdims=True) / count)
    process = (above / (spread + eps)).reshape(returns.shape)
    padded = np.pad(process, ((0, 0), (0, 1)))  # step -1 reads the last column: 0
    tokens = outcome[:, None] + np.take_along_axis(padded, token_steps, axis=1)
    return np.where(response_mask, tokens, 0.0)


def _groups(rewards: Rewards, group_size: int) -> Float[np.ndarray, "P G"]:
    if rewards.ndim != 1 or group_size < 1 or len(rewards) % group_size:
        raise ValueError(f"rewards: shape {rewards.shape} is not made of groups of {group_size}")
    return np.asarray(rewards, np.float64).reshape(-1, group_size)


def _without_spread(groups: Float[np.ndarray, "P G ..."]) -> Bool[np.ndarray, "P 1 ..."]:
    known = ~np.isnan(groups)
    high = np.where(known, groups, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    low = np.where(known, groups, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    return high <= low  # none known: -inf <= inf


def _zero_without_spread(
    groups: Float[np.ndarray, "P G ..."], advantages: Float[np.ndarray, "P G ..."]
) -> Float[np.ndarray, "P G ..."]:
    nothing = np.isnan(groups)
    if groups.shape[1] > 1:
        nothing = nothing | _without_spread(groups)
    return np.where(nothing, 0.0, advantages)


def _centred(groups: Float[np.ndarray, "P G ..."]) -> Float[np.ndarray, "P G ..."]:
    if groups.shape[1] == 1:
        return groups
    known = ~np.isnan(groups)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    return groups - np.where(known, groups, 0.0).sum(axis=1, keepdims=True) / count


def _std(groups: Float[np.ndarray, "P G"]) -> Float[np.ndarray, "P 1"]:
    if groups.shape[1] == 1:
        return np.ones((len(groups), 1))
    known = ~np.isnan(groups)
    squares = np.where(known, np.square(_centred(groups)), 0.0).sum(axis=1, keepdims=True)
    return np.sqrt(squares / np.maximum(known.sum(axis=1, keepdims=True) - 1, 1))
