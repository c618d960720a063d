"""What a training run carries from step to step, and how it lies on the mesh."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct, traverse_util
from jaxtyping import Array, Int

Params = dict[str, Any]  # nested, leaves are arrays


class TrainingError(Exception):
    """A run that cannot start or go on; the message says which field, step or sample is at fault."""


@struct.dataclass
class TrainState:
    """Parameters (those that learn and those that do not), optimizer state, and the number of updates done."""

    step: Int[Array, ""]
    trainable: Params
    frozen: Params
    opt_state: optax.OptState

    def params(self) -> Params:
        """All parameters as one nested dictionary, the form that checkpoints hold."""
        return join(self.trainable, self.frozen)


def join(trainable: Params, frozen: Params) -> Params:
    """The inverse of `partition`."""
    flat = traverse_util.flatten_dict(trainable) | traverse_util.flatten_dict(frozen)
    return traverse_util.unflatten_dict(flat)


def partition(params: Params, learns: Callable[[str], bool]) -> tuple[Params, Params]:
    """Split nested parameters into (trainable, frozen) by dotted path."""
    flat = traverse_util.flatten_dict(params)
    chosen = {path: learns(".".join(map(str, path))) for path in flat}
    trainable = {path: value for path, value in flat.items() if chosen[path]}
    frozen = {path: value for path, value in flat.items() if not chosen[path]}
    return traverse_util.unflatten_dict(trainable), traverse_util.unflatten_dict(frozen)


def trainable_paths(freeze: str, lora: bool) -> Callable[[str], bool]:
    """Which dotted parameter paths learn: all, only adapters when `lora`, and never those that `freeze` matches.

    Args:
      freeze: a regular expression searched in the path; "" freezes nothing.
      lora: whether the model carries adapters.
    """
    adapter = re.compile(r"\.lora_[ab]$")

    def learns(path: str) -> bool:
        if freeze and re.search(freeze, path):
            return False
        return bool(adapter.search(path)) if lora else True

    return learns


def init_state(params: Params, tx: optax.GradientTransformation, learns: Callable[[str], bool]) -> TrainState:
    """A fresh state; optimizer moments lie on the mesh as the parameters they belong to.

    Raises:
      TrainingError: when nothing is left to train.
    """
    trainable, frozen = partition(params, learns)
    if not trainable:
        raise TrainingError("config.model.freeze matches every parameter that could learn; nothing is left to train")
    step = jnp.zeros((), jnp.int32)
    opt_state = jax.jit(tx.init, out_shardings=optimizer_shardings(tx, trainable))(trainable)
    return TrainState(step=step, trainable=trainable, frozen=frozen, opt_state=opt_state)


def optimizer_shardings(tx: optax.GradientTransformation, trainable: Params) -> Any:
    """The sharding of each optimizer leaf: its parameter's, or replicated for counters."""
    shardings = jax.tree.map(lambda x: x.sharding, trainable)
    first = jax.tree.leaves(shardings)[0]
    rest = (
        jax.sharding.NamedSharding(first.mesh, jax.sharding.PartitionSpec())
        if isinstance(first, jax.sharding.NamedSharding)
        else first
    )
    return optax.tree_map_params(
        tx,
        lambda _, sharding: sharding,
        jax.eval_shape(tx.init, trainable),
        shardings,
        transform_non_params=lambda _: rest,
    )


def model_from(graphdef: nnx.GraphDef, *params: Params) -> Any:
    """The module again, inside or outside of a trace."""
    merged = params[0] if len(params) == 1 else join(*params)
    return nnx.merge(graphdef, nnx.State(merged))
