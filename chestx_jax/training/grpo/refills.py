"""Dynamic sampling (DAPO, arXiv 2503.14476): of several draws of prompts the groups that teach something.

What is kept is decided from the draws of all processes together, in the order of the prompts' numbers, so that it is
the same for any number of processes. A group may so be kept by another process than the one that drew it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from chestx_jax.parallel import BATCH_AXES, batch_sharding, batch_share, gather_shares, own_rows, put_rows
from chestx_jax.rewards import Rewards
from chestx_jax.rollout import Completion


@dataclass(frozen=True)
class Group:
    """This process's prompts with their completions and rewards: row p * group_size + g answers prompt p.

    `scores` are the log-probabilities that an update needs and does not compute itself, on the device, of all
    processes.
    """

    prompts: Mapping[str, np.ndarray]
    completion: Completion
    scores: Mapping[str, Array]
    rewards: Rewards


def first_useful(useful: Bool[np.ndarray, " D"], count: int) -> Int[np.ndarray, " B"]:
    """Which `count` of the prompts drawn so far make the batch, ascending: the first useful ones, and where those are
    too few, the first of the others."""
    return np.sort(np.argsort(~useful, kind="stable")[:count])


def rows_of(prompts: Int[np.ndarray, " P"], group_size: int) -> Int[np.ndarray, " R"]:
    """The rows of the completions of these prompts."""
    return (prompts[:, None] * group_size + np.arange(group_size)).reshape(-1)


def choose(draws: Sequence[Group], prompts: Int[np.ndarray, " B"], group_size: int, mesh: Mesh) -> Group:
    """The chosen prompts as one group, of which this process has its share; all processes call this together.

    Args:
      draws: of B prompts each, over all processes.
      prompts: prompt b of draw d is d * B + b; the same on every process.
    """
    share, shares = batch_share(mesh)
    rows = np.split(rows_of(prompts, group_size), shares)[share]
    told = gather_shares(
        mesh, [(draw.completion.samples, draw.completion.texts, draw.rewards) for draw in draws]
    )
    samples, texts, rewards = zip(*(part for draw in zip(*told, strict=True) for part in draw), strict=True)
    every_sample = [sample for part in samples for sample in part]
    every_text = [text for part in texts for text in part]
    arrays, scores = _pick([_on_device(draw, mesh) for draw in draws], prompts.astype(np.int32), mesh)
    own: dict[str, Any] = own_rows(mesh, arrays)
    return Group(
        prompts=own.pop("prompts"),
        completion=Completion(
            samples=tuple(every_sample[row] for row in rows),
            texts=tuple(every_text[row] for row in rows),
            **own,
        ),
        scores=scores,
        rewards=Rewards.joined(rewards).take(rows),
    )


def _on_device(draw: Group, mesh: Mesh) -> tuple[dict[str, Any], dict[str, Array]]:
    done = draw.completion
    arrays = {
        "prompts": dict(draw.prompts),
        "tokens": done.tokens,
        "mask": done.mask,
        "logprobs": done.logprobs,
        "ended": done.ended,
    }
    return put_rows(mesh, arrays), dict(draw.scores)


@partial(jax.jit, static_argnames="mesh")
def _pick(draws: list[Any], prompts: Int[Array, " B"], mesh: Mesh) -> Any:
    """Leaves [B * k, ...] of several draws as leaves [B * k, ...] of the chosen prompts with their k rows each.

    Every chip gets its prompts one after the other: XLA makes all that one gather asks for on every chip, which for a
    batch of images is too much.
    """
    sharding = batch_sharding(mesh)
    count, places = len(prompts), np.prod([mesh.shape[axis] for axis in BATCH_AXES])
    in_turn = prompts.reshape(places, -1).T

    def pick(*leaves: Array) -> Array:
        shape = leaves[0].shape
        drawn = jnp.stack(leaves).reshape(len(leaves), count, shape[0] // count, *shape[1:])

        def one_each(chosen: Int[Array, " places"]) -> Array:
            found = drawn[chosen // count, chosen % count]
            return jax.lax.with_sharding_constraint(found, sharding)

        picked = jax.lax.map(one_each, in_turn).swapaxes(0, 1).reshape(shape)
        return jax.lax.with_sharding_constraint(picked, sharding)

    return jax.tree.map(pick, *draws)
