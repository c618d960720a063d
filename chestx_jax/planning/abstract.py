"""What a run holds on its devices, with shapes in the place of arrays; and what a program to be compiled is."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from chestx_jax.models.lora import add_lora
from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig
from chestx_jax.parallel import batch_sharding, replicated, shardings
from chestx_jax.storage import to_path
from chestx_jax.training.optimizer import make_optimizer
from chestx_jax.training.setup import ARCHS
from chestx_jax.training.state import HOST, TrainState, optimizer_shardings, partition, split_model
from chestx_jax.weights.model_files import read_config


class PlanError(Exception):
    """A plan that cannot be made from this config, or for this topology."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One jitted function and what it is called with.

    Attributes:
      name: for the tables.
      bucket: the shape of the samples that it takes, in words.
      trace: () -> `jax.stages.Traced`, to be called with the mesh set.
      mesh: of its arguments.
      parts: bytes of its arguments on one chip by what they are.
      resident: bytes that lie on the chip beside it and are none of its arguments.
      offloaded: bytes of its arguments that lie in the host's memory, for one chip; it fetches and returns them.
      model_flops: operations that the mathematics asks for, all chips together.
      tokens: tokens that one run trains on, reads or draws.
      hbm_bytes: what a chip must at least read and write.
      runs: how often a whole run of the config calls it when all samples are of this shape.
    """

    name: str
    bucket: str
    trace: Callable[[], Any]
    mesh: Mesh
    parts: Mapping[str, int]
    model_flops: float
    tokens: int
    hbm_bytes: int
    runs: int
    resident: Mapping[str, int] = dataclasses.field(default_factory=dict)
    offloaded: int = 0


def model_sizes(config: ConfigDict) -> Qwen2VLConfig:
    """Sizes of the model that the `model` section names; weights and tokenizer need not be there.

    Raises:
      PlanError: neither `pretrained` nor a known `arch`.
      WeightsError: `pretrained` has no readable config.json.
    """
    if config.pretrained:
        return read_config(to_path(config.pretrained))[0]
    if config.arch not in ARCHS:
        raise PlanError(
            f"config.model.arch is {config.arch!r} and config.model.pretrained is empty; the plan needs one of "
            f"{', '.join(ARCHS)} as arch, or a directory as pretrained"
        )
    return ARCHS[config.arch]


def abstract_model(
    config: ConfigDict,
    sizes: Qwen2VLConfig,
    mesh: Mesh,
    extend: Callable[[Qwen2VL], None] = lambda model: None,
) -> Qwen2VL:
    """The model that `config` (the `model` section) describes, as shapes that lie on `mesh`.

    Args:
      extend: what the run adds to it, a head for one.
    """

    def make() -> Qwen2VL:
        model = Qwen2VL(
            sizes,
            rngs=nnx.Rngs(params=0),
            dtype=jnp.dtype(config.dtype),
            param_dtype=jnp.dtype(config.param_dtype),
            remat=config.remat,
            attention=config.attention,
        )
        if config.lora.rank:
            add_lora(model, config.lora.rank, config.lora.alpha, config.lora.targets, nnx.Rngs(params=1))
        extend(model)
        return model

    model = nnx.eval_shape(make)
    graphdef, params = split_model(model)
    return nnx.merge(graphdef, nnx.State(placed(params, shardings(model, mesh))))


def abstract_state(
    model: Qwen2VL, config: ConfigDict, updates: int, learns: Callable[[str], bool], mesh: Mesh
) -> tuple[nnx.GraphDef, Any, TrainState]:
    """(structure, optimizer, state) of a training run, as `training.setup.first_state` makes them."""
    graphdef, params = split_model(model)
    tx = make_optimizer(config.optimizer, updates, config.guard.spike)
    trainable, frozen = partition(params, learns)
    places = optimizer_shardings(tx, trainable, mesh, offload=config.optimizer.offload)
    opt_state = placed(jax.eval_shape(tx.init, trainable), places)
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh))
    return graphdef, tx, TrainState(step, trainable, frozen, opt_state)


def state_parts(state: TrainState) -> dict[str, int]:
    """Bytes on one chip; what lies in its host's memory is not there."""
    return {
        "parameters": chip_bytes((state.trainable, state.frozen)),
        "optimizer": chip_bytes((state.opt_state, state.step)),
    }


def training_program(
    name: str,
    bucket: str,
    step: Any,
    state: TrainState,
    batch: Any,
    *,
    mesh: Mesh,
    model_flops: float,
    tokens: int,
    runs: int,
    resident: Mapping[str, int] | None = None,
) -> Program:
    """The program of the jitted `step(state, *batch)`. A chip must at least read all parameters and the batch, write
    what learns, and read and write its optimizer state."""
    parts = {**state_parts(state), "batch": chip_bytes(batch)}
    learns, offloaded = chip_bytes(state.trainable), offloaded_bytes(state.opt_state)
    return Program(
        name=f"{name} {bucket}",
        bucket=bucket,
        trace=partial(step.trace, state, *batch),
        mesh=mesh,
        parts=parts,
        resident=resident or {},
        model_flops=model_flops,
        tokens=tokens,
        hbm_bytes=parts["parameters"] + learns + 2 * (parts["optimizer"] + offloaded) + parts["batch"],
        runs=runs,
        offloaded=offloaded,
    )


def abstract_batch(
    mesh: Mesh, rows: int, tokens: int, patches: int, *, target: bool = True
) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of one bucket's shape (data/example.py); prompts alone when not `target`."""
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "tokens": ((tokens,), jnp.int32),
        "positions": ((3, tokens), jnp.int32),
        "segments": ((tokens,), jnp.int32),
        "loss_mask": ((tokens,), jnp.bool_),
        "patches": ((patches, 1176), jnp.float32),
        "patch_hw": ((patches, 2), jnp.int32),
        "patch_segments": ((patches,), jnp.int32),
        "image_index": ((tokens,), jnp.int32),
    }
    if not target:
        del shapes["loss_mask"]
    return {name: rows_of(mesh, (rows, *shape), dtype) for name, (shape, dtype) in shapes.items()}


def rows_of(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An array whose rows the batch axes share."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))


def in_words(tokens: int, patches: int) -> str:
    """A bucket."""
    return f"{tokens} tokens, {patches} patches"


def chip_bytes(tree: Any) -> int:
    """Bytes of a tree of placed shapes on one chip, without those that lie in its host's memory."""
    return sum(_share(leaf) for leaf in jax.tree.leaves(tree) if leaf.sharding.memory_kind != HOST)


def offloaded_bytes(tree: Any) -> int:
    """Bytes of a tree of placed shapes that lie in the host's memory, for one chip."""
    return sum(_share(leaf) for leaf in jax.tree.leaves(tree) if leaf.sharding.memory_kind == HOST)


def _share(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def placed(tree: Any, places: Any) -> Any:
    """Shapes with their shardings."""

    def put(leaf: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree.map(put, tree, places)
