"""A GRPO config checked before anything is loaded, and its parts as objects."""

from dataclasses import dataclass

from ml_collections import ConfigDict

from chestx_jax.rewards import RewardMixture
from chestx_jax.rollout import Sampling
from chestx_jax.training.grpo.credit import CREDITS, NAMES
from chestx_jax.training.grpo.objective import Objective
from chestx_jax.training.state import TrainingError

OVERLONG = ("keep", "drop", "shape")


@dataclass(frozen=True)
class Settings:
    """What the parts of a config stand for."""

    objective: Objective
    sampling: Sampling
    rewards: RewardMixture
    updates: int  # optimizer steps a rollout

    @property
    def on_policy(self) -> bool:
        """Whether every update is of the weights that sampled."""
        return self.updates == 1


def check(config: ConfigDict) -> Settings:
    """The settings of a `configs/grpo.py` config.

    Raises:
      TrainingError: a field that cannot be, or that makes no sense beside another; names both.
      RewardError: no reward, or one that cannot be found.
    """
    objective, sampling = objective_of(config), sampling_of(config)
    rewards = RewardMixture.from_config(config.rewards.to_dict())
    for wrong, message in _problems(config, rewards):
        if wrong:
            raise TrainingError(message)
    return Settings(objective, sampling, rewards, config.epochs * config.minibatches)


def objective_of(config: ConfigDict) -> Objective:
    """The `objective` section.

    Raises:
      TrainingError: a field that cannot be.
    """
    try:
        return Objective(**config.objective)
    except ValueError as error:
        raise TrainingError(f"config.objective: {error}") from error


def sampling_of(config: ConfigDict) -> Sampling:
    """How the `rollout` section draws tokens.

    Raises:
      TrainingError: a field that cannot be.
    """
    rollout = config.rollout
    try:
        return Sampling(
            temperature=rollout.temperature, top_k=rollout.top_k, top_p=rollout.top_p, min_p=rollout.min_p
        )
    except ValueError as error:
        raise TrainingError(f"config.rollout: {error}") from error


def _problems(config: ConfigDict, rewards: RewardMixture) -> list[tuple[bool, str]]:
    rollout, parts = config.rollout, config.minibatches * config.accumulation
    modes = {mode for _, mode, _ in config.data.train} | {mode for _, mode in config.data.validation}
    asks_reasoning = any(
        row.function in ("format", "process") or row.function.startswith("learned")
        for row in config.rewards.values()
    )
    return [
        (
            rollout.group_size < 2,
            f"config.rollout.group_size is {rollout.group_size}: a completion is compared with the others of its "
            "group, so there must be at least 2",
        ),
        (
            rollout.temperature == 0,
            "config.rollout.temperature is 0: a greedy group has no spread to learn from",
        ),
        (
            config.advantage.estimator not in NAMES,
            f"config.advantage.estimator is {config.advantage.estimator!r}; it can be {', '.join(NAMES)}",
        ),
        (
            config.advantage.credit not in CREDITS,
            f"config.advantage.credit is {config.advantage.credit!r}; it can be {', '.join(CREDITS)}",
        ),
        (
            rollout.overlong not in OVERLONG,
            f"config.rollout.overlong is {rollout.overlong!r}; it can be {', '.join(OVERLONG)}",
        ),
        (
            "answer" in modes and asks_reasoning,
            "config.data asks for answers alone (mode 'answer'), but config.rewards pays for reasoning "
            "(format, process): use mode 'reason'",
        ),
        (
            config.batch_size % parts != 0,
            f"config.batch_size is {config.batch_size} prompts: it cannot be divided evenly among "
            f"{config.minibatches} minibatches x {config.accumulation} micro-batches",
        ),
        (
            rollout.refills > 0 and len(config.data.buckets) != 1,
            "config.rollout.refills joins prompts of several draws: config.data.buckets must be a single one",
        ),
        (
            all(component.weight == 0 for component in rewards.components),
            "config.rewards: every weight is 0, nothing is rewarded",
        ),
    ]
