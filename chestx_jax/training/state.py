"""What a training run carries from step to step, and how it lies on the mesh."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct, traverse_util
from jax.sharding import Mesh
from jaxtyping import Array, Int

from chestx_jax.parallel import replicated

HOST = "pinned_host"  # the memory kind that a device can copy from by itself
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

    def load(self, saved: dict[str, Any]) -> "TrainState":
        """This state with the arrays of `saved`: {"params", "opt_state", "step"}."""
        ours = {".".join(map(str, path)) for path in traverse_util.flatten_dict(self.trainable)}
        trainable, frozen = partition(saved["params"], ours.__contains__)
        return TrainState(saved["step"], trainable, frozen, saved["opt_state"])


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


def init_state(
    params: Params,
    tx: optax.GradientTransformation,
    learns: Callable[[str], bool],
    mesh: Mesh,
    *,
    offload: bool = False,
) -> TrainState:
    """A fresh state; optimizer moments lie on the mesh as the parameters they belong to, counters everywhere.

    Args:
      offload: moments lie in the memory of the hosts that their devices belong to (`guard.advance` fetches them).

    Raises:
      TrainingError: when nothing is left to train, or `offload` is not for these devices.
    """
    if offload and HOST not in {memory.kind for memory in mesh.local_devices[0].addressable_memories()}:
        raise TrainingError(f"config.optimizer.offload: {mesh.local_devices[0]} has no memory {HOST!r}")
    trainable, frozen = partition(params, learns)
    if not trainable:
        raise TrainingError(
            "config.model.freeze matches every parameter that could learn; nothing is left to train"
        )
    step = jax.device_put(jnp.zeros((), jnp.int32), replicated(mesh))
    places = optimizer_shardings(tx, trainable, mesh, offload=offload)
    opt_state = jax.jit(tx.init, out_shardings=places)(trainable)
    return TrainState(step=step, trainable=trainable, frozen=frozen, opt_state=opt_state)


def optimizer_shardings(
    tx: optax.GradientTransformation, trainable: Params, mesh: Mesh, *, offload: bool
) -> Any:
    """The sharding of each optimizer leaf: its parameter's (in the host's memory when `offload`), or replicated for
    counters."""
    return optax.tree_map_params(
        tx,
        lambda _, param: param.sharding.with_memory_kind(HOST) if offload else param.sharding,
        jax.eval_shape(tx.init, trainable),
        trainable,
        transform_non_params=lambda _: replicated(mesh),
    )


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Params]:
    """Structure and parameters of a module; `model_from` puts them together again."""
    graphdef, state = nnx.split(model, nnx.Param)
    return graphdef, nnx.to_pure_dict(state)


def model_from(graphdef: nnx.GraphDef, *params: Params) -> Any:
    """The module again, inside or outside of a trace."""
    merged = params[0] if len(params) == 1 else join(*params)
    return nnx.merge(graphdef, nnx.State(merged))
