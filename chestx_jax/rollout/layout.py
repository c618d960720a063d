"""How weights lie while they write: each cut by `tensor` alone, prompts over the other chips.

Training cuts every weight by `fsdp` and gathers it for each product. That is cheap where a product has thousands of
rows; a token drawn has one a prompt, and every token would gather the whole model again (7,000 GB for 512 tokens of
the 7B model). So once a step the weights move, on the devices, to where decoding needs them.
"""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jax.sharding import Mesh

from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import MeshError, shardings

log = logging.getLogger(__name__)

Params = dict[str, Any]
PRODUCTS = ("kernel", "embedding", "lora_a", "lora_b")
"""Parameters that every reader brings to the compute type first: moved in that type, they give the same numbers."""


def writing_mesh(training: Mesh, tensor: int) -> Mesh:
    """The devices of the training mesh, in the same order, as replica x 1 x `tensor`.

    Args:
      tensor: chips that share the weights; 0 keeps the training mesh, with a warning where that is slow.

    Returns:
      `training` itself where nothing would move.

    Raises:
      MeshError: `tensor` does not divide the devices, or chips of two slices would share weights.
    """
    if tensor == 0:
        if training.shape["fsdp"] > 1:
            log.warning(
                "rollout.tensor=0: completions are drawn with weights cut by fsdp=%d, which gathers all of them for "
                "every token; give the number of chips that can hold the weights instead",
                training.shape["fsdp"],
            )
        return training
    if training.size % tensor:
        raise MeshError(f"rollout.tensor={tensor} does not divide the {training.size} devices of the mesh")
    if training.shape["fsdp"] == 1 and training.shape["tensor"] == tensor:
        return training
    devices = training.devices.reshape(training.size // tensor, 1, tensor)
    _check_slices(devices, tensor)
    return Mesh(devices, training.axis_names, axis_types=training.axis_types)


def _check_slices(devices: np.ndarray, tensor: int) -> None:
    for group in devices.reshape(-1, tensor):
        if len({device.slice_index for device in group if hasattr(device, "slice_index")}) > 1:
            raise MeshError(
                f"rollout.tensor={tensor}: chips of several slices would share the weights and exchange them over the "
                "network between slices for every token; it must divide the chips of one slice"
            )


def writing_params(params: Params, dtype: Any) -> Params:
    """Nested parameters with those of products in the compute type `dtype`; inside or outside of a trace."""
    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict(
        {path: leaf.astype(dtype) if path[-1] in PRODUCTS else leaf for path, leaf in flat.items()}
    )


def move(model: Qwen2VL, mesh: Mesh) -> Qwen2VL:
    """A copy of the model that lies on `mesh` (`writing_mesh` of its own): one program, from device to device."""
    graphdef, state = nnx.split(model, nnx.Param)
    places = traverse_util.flatten_dict(shardings(model, mesh))
    moved = mover(jnp.dtype(model.text.embed.dtype), tuple(places.items()))(nnx.to_pure_dict(state))
    return nnx.merge(graphdef, nnx.State(moved))


@functools.cache  # one program a model and mesh, not one a step
def mover(dtype: Any, places: tuple[tuple[tuple[str, ...], jax.NamedSharding], ...]) -> Any:
    """The jitted parameters -> parameters of `move`; `places` is the flattened tree of shardings."""
    out = traverse_util.unflatten_dict(dict(places))
    return jax.jit(functools.partial(writing_params, dtype=dtype), out_shardings=out)
