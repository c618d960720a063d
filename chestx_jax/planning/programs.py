"""The real programs of a config, with shapes in the place of arrays: what a run would compile, and nothing else.

A new program is a function from (config, sizes, mesh) to `Program`s, registered in PROGRAMS.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from chestx_jax.models.lora import add_lora
from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig
from chestx_jax.parallel import batch_sharding, make_mesh, replicated, shardings
from chestx_jax.planning.flops import rollout_flops, update_flops
from chestx_jax.rollout.decode import _generate
from chestx_jax.rollout.sampling import Sampling
from chestx_jax.training.optimizer import learning_rate, make_optimizer
from chestx_jax.training.setup import ARCHS
from chestx_jax.training.sft import make_train_step
from chestx_jax.training.state import (
    TrainState,
    optimizer_shardings,
    partition,
    split_model,
    trainable_paths,
)
from chestx_jax.weights.model_files import read_config


class PlanError(Exception):
    """A plan that cannot be made from this config, or for this topology."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One jitted function and what it is called with.

    Attributes:
      name: for the tables.
      trace: () -> `jax.stages.Traced`, to be called with the mesh set.
      mesh: of its arguments.
      parts: bytes of its arguments on one chip by what they are.
      model_flops: operations that the mathematics asks for, all chips together (planning/flops.py).
      tokens: tokens that one run trains on or draws.
      hbm_bytes: what a chip must at least read and write.
      runs: how often a whole run of the config calls it; 0 when the config does not say.
    """

    name: str
    trace: Callable[[], Any]
    mesh: Mesh
    parts: Mapping[str, int]
    model_flops: float
    tokens: int
    hbm_bytes: int
    runs: int


def model_sizes(config: ConfigDict) -> Qwen2VLConfig:
    """Sizes of the model that the `model` section names; weights and tokenizer need not be there.

    Raises:
      PlanError: neither `pretrained` nor a known `arch`.
      WeightsError: `pretrained` has no readable config.json.
    """
    if config.pretrained:
        return read_config(Path(config.pretrained))[0]
    if config.arch not in ARCHS:
        raise PlanError(
            f"config.model.arch is {config.arch!r} and config.model.pretrained is empty; the plan needs one of "
            f"{', '.join(ARCHS)} as arch, or a directory as pretrained"
        )
    return ARCHS[config.arch]


def abstract_model(config: ConfigDict, sizes: Qwen2VLConfig, mesh: Mesh, param_dtype: Any) -> Qwen2VL:
    """The model that `config` (the `model` section) describes, as shapes that lie on `mesh`."""

    def make() -> Qwen2VL:
        model = Qwen2VL(
            sizes,
            rngs=nnx.Rngs(params=0),
            dtype=jnp.dtype(config.dtype),
            param_dtype=jnp.dtype(param_dtype),
            remat=config.remat,
        )
        if config.lora.rank:
            add_lora(model, config.lora.rank, config.lora.alpha, config.lora.targets, nnx.Rngs(params=1))
        return model

    model = nnx.eval_shape(make)
    graphdef, params = split_model(model)
    return nnx.merge(graphdef, nnx.State(_placed(params, shardings(model, mesh))))


def abstract_state(model: Qwen2VL, config: ConfigDict, mesh: Mesh) -> tuple[nnx.GraphDef, Any, TrainState]:
    """(structure, optimizer, state) of a training run, as `training.sft.run` makes them."""
    graphdef, params = split_model(model)
    tx = make_optimizer(config.optimizer, config.steps)
    trainable, frozen = partition(
        params, trainable_paths(config.model.freeze, lora=bool(config.model.lora.rank))
    )
    opt_state = _placed(jax.eval_shape(tx.init, trainable), optimizer_shardings(tx, trainable, mesh))
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh))
    return graphdef, tx, TrainState(step, trainable, frozen, opt_state)


def abstract_batch(mesh: Mesh, rows: int, tokens: int, patches: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of one bucket's shape (data/example.py)."""
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
    place = batch_sharding(mesh)
    return {name: jax.ShapeDtypeStruct((rows, *s), t, sharding=place) for name, (s, t) in shapes.items()}


def sft_programs(config: ConfigDict, sizes: Qwen2VLConfig, devices: list[jax.Device]) -> list[Program]:
    """One training step for each bucket of the config."""
    mesh = make_mesh(config.mesh, devices)
    model = abstract_model(config.model, sizes, mesh, config.model.param_dtype)
    graphdef, tx, state = abstract_state(model, config, mesh)
    step: Any = make_train_step(
        graphdef,
        tx,
        learning_rate(config.optimizer, config.steps),
        accumulation=config.accumulation,
        loss_chunk=config.loss_chunk,
    )
    programs = []
    for tokens, patches in config.data.buckets:
        batch = abstract_batch(mesh, config.batch_size, tokens, patches)
        parts = {
            "parameters": chip_bytes((state.trainable, state.frozen)),
            "optimizer": chip_bytes((state.opt_state, state.step)),
            "batch": chip_bytes(batch),
        }
        programs.append(
            Program(
                name=f"sft {tokens} tokens, {patches} patches",
                trace=partial(step.trace, state, batch),
                mesh=mesh,
                parts=parts,
                model_flops=update_flops(sizes, config.batch_size, tokens, patches),
                tokens=config.batch_size * tokens,
                hbm_bytes=2 * (parts["parameters"] + parts["optimizer"]) + parts["batch"],
                runs=config.steps,
            )
        )
    return programs


@dataclasses.dataclass(frozen=True)
class Rollout:
    """What a rollout draws: `group` continuations of each prompt, on a mesh without fsdp."""

    prompts: int
    group: int
    new_tokens: int
    tensor: int


def rollout_programs(
    config: ConfigDict, sizes: Qwen2VLConfig, devices: list[jax.Device], rollout: Rollout
) -> list[Program]:
    """Prefill and decode for each bucket of the config (its tokens are the prompt's), bfloat16 weights cut by
    `tensor`, prompts over the rest."""
    mesh = make_mesh({"replica": -1, "fsdp": 1, "tensor": rollout.tensor}, devices)
    model = abstract_model(config.model, sizes, mesh, "bfloat16")
    rows = rollout.prompts * rollout.group
    programs = []
    for tokens, patches in config.data.buckets:
        batch = abstract_batch(mesh, rollout.prompts, tokens, patches)
        del batch["loss_mask"]
        parts = {"parameters": chip_bytes(nnx.to_pure_dict(nnx.state(model))), "batch": chip_bytes(batch)}
        kv = 4 * sizes.num_layers * sizes.num_kv_heads * sizes.head_dim  # bytes a position, bfloat16
        cache = (rollout.prompts * tokens + rows * rollout.new_tokens / 2) * kv / mesh.size
        programs.append(
            Program(
                name=f"rollout of {rollout.new_tokens}, {tokens} tokens, {patches} patches",
                trace=partial(
                    _generate.trace,
                    model,
                    batch,
                    jax.eval_shape(lambda: jax.random.key(0)),
                    jax.ShapeDtypeStruct((rows,), jnp.int32),
                    max_new_tokens=rollout.new_tokens,
                    eos_ids=(sizes.eos_token_id,),
                    sampling=Sampling(1.0, (sizes.image_token_id, sizes.video_token_id)),
                    group_size=rollout.group,
                ),
                mesh=mesh,
                parts=parts,
                model_flops=rollout_flops(
                    sizes, rollout.prompts, rollout.group, tokens, patches, rollout.new_tokens
                ),
                tokens=rows * rollout.new_tokens,
                hbm_bytes=int(rollout.new_tokens * (parts["parameters"] + cache)),
                runs=0,
            )
        )
    return programs


def chip_bytes(tree: Any) -> int:
    """Bytes of a tree of placed shapes on one chip."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _placed(tree: Any, places: Any) -> Any:
    def put(leaf: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree.map(put, tree, places)


def build(
    name: str, config: ConfigDict, devices: list[jax.Device], options: Mapping[str, int]
) -> list[Program]:
    """The programs called `name` (one of PROGRAMS).

    Args:
      options: for rollout, the fields of `Rollout`.

    Raises:
      PlanError, MeshError, WeightsError: the config does not say what to compile.
    """
    return PROGRAMS[name](config, model_sizes(config.model), devices, options)


PROGRAMS: dict[str, Callable[..., list[Program]]] = {
    "sft": lambda config, sizes, devices, options: sft_programs(config, sizes, devices),
    "rollout": lambda config, sizes, devices, options: rollout_programs(
        config, sizes, devices, Rollout(**options)
    ),
}
