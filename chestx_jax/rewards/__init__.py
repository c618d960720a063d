"""Numbers for completions: format, outcome and process, anybody's own rewards, and their weighted sum.

A reward is a function `f(prompts, completions, **columns) -> list[float | None]`, TRL's signature;
`reward("process")` or `reward("my_package.my_reward")` finds one, `RewardMixture` adds several up.
"""

from chestx_jax.rewards.lookup import reward
from chestx_jax.rewards.mixture import Component, RewardMixture, Rewards, columns_of
from chestx_jax.rewards.signature import RewardError, RewardFunction, StepReward, Stepwise

__all__ = [
    "Component",
    "RewardError",
    "RewardFunction",
    "RewardMixture",
    "Rewards",
    "StepReward",
    "Stepwise",
    "columns_of",
    "reward",
]
