"""Reward functions by name: the built-in ones, and anybody's by dotted path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from chestx_jax.rewards.format import format_reward
from chestx_jax.rewards.outcome import outcome_reward
from chestx_jax.rewards.process import process_reward
from chestx_jax.rewards.signature import RewardError, RewardFunction

BUILT_IN: Mapping[str, RewardFunction] = {
    "format": format_reward,
    "outcome": outcome_reward,
    "process": process_reward,
}


def reward(name: str) -> RewardFunction:
    """The reward function called `name`: one of `BUILT_IN`, "learned:DIR" (`learned`), or the dotted path of an
    importable callable ("my_package.my_module.my_reward").

    Raises:
      RewardError: there is none.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if ":" in name:
        from chestx_jax.rewards.learned import learned_reward  # the others need no JAX

        return learned_reward(name)
    module, _, attribute = name.rpartition(".")
    if not module:
        known = ", ".join(BUILT_IN)
        raise RewardError(
            f"reward {name!r} is none of {known}, nor a dotted path such as package.module.name"
        )
    try:
        found = vars(importlib.import_module(module))[attribute]
    except ImportError as error:
        raise RewardError(f"reward {name!r}: cannot import {module!r}: {error}") from error
    except KeyError:
        raise RewardError(f"reward {name!r}: module {module!r} has no {attribute!r}") from None
    if not callable(found):
        raise RewardError(f"reward {name!r} is a {type(found).__name__}, not a function")
    return found
