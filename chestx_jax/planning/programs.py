"""The real programs of a config: what a run would compile, and nothing else.

A new program is a function from (config, sizes, devices, tokens, patches) to `Program`, registered in PROGRAMS.
"""

from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from chestx_jax.planning import grpo, process_reward, sft
from chestx_jax.planning.abstract import PlanError, Program, model_sizes
from chestx_jax.training.setup import check_kernel

PROGRAMS: dict[str, Callable[..., Program]] = {
    "sft": sft.update,
    "reshard": grpo.reshard,
    "rollout": grpo.rollout,
    "score": grpo.score,
    "grpo": grpo.update,
    "process_reward": process_reward.update,
    "verdicts": process_reward.verdicts,
}


def recipe_programs(config: ConfigDict) -> tuple[str, ...]:
    """Names of all that a run of this config compiles for a step, in the order in which it runs them."""
    if "max_steps" in config:
        return ("process_reward", "verdicts")
    if "rollout" not in config:
        return ("sft",)
    updates = config.epochs * config.minibatches
    wanted = {
        "reshard": config.rollout.tensor > 0,
        "rollout": True,
        "score": config.objective.kl_weight > 0 or updates > 1,
        "verdicts": any(row.function.startswith("learned") for row in config.rewards.values()),
        "grpo": True,
    }
    return tuple(name for name, there in wanted.items() if there)


def build(name: str, config: ConfigDict, devices: list[jax.Device], tokens: int, patches: int) -> Program:
    """The program called `name` (one of PROGRAMS) for one bucket.

    Raises:
      PlanError, MeshError, WeightsError, TrainingError: the config does not say what to compile.
      AttentionError: the devices, or rows of this length, are not for `config.model.attention`.
    """
    known = recipe_programs(config)
    if name not in known:
        raise PlanError(f"--program={name}: a run of this config compiles only {', '.join(known)}")
    check_kernel(config, devices)
    return PROGRAMS[name](config, model_sizes(config.model), devices, tokens, patches)
