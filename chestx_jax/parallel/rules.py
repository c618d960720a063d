"""One table: parameter path -> PartitionSpec.

Kernels are cut along one dimension by `fsdp` (storage: gathered a layer at a time) and, inside a layer's
matrix products, along the other by `tensor` (column-parallel in, row-parallel out, as in Megatron-LM, arXiv
1909.08053, section 3). The stacked layer axis is never cut: the scan over layers slices it.

An axis is applied to a dimension only where it divides it; elsewhere the dimension stays whole, and the list
of such parameters is logged once. The projections of the language model's attention are cut between heads
only, so `tensor` must divide the number of heads (the 2B model has two key/value heads: with tensor=4 they
stay whole).
"""

import functools
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
from flax import nnx, traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chestx_jax.parallel.mesh import FSDP, TENSOR, MeshError

log = logging.getLogger(__name__)

P = PartitionSpec
Module = TypeVar("Module", bound=nnx.Module)

# The first dimension of everything under `layers` and `blocks` is the layer. The vision tower is not cut by `tensor`:
# its kernels are small and its rows many, so `tensor` splits the rows further (models/partitioning.py).
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"text\.embed\.embedding", P(TENSOR, FSDP)),
    (r"text\.layers\.attn\.[qkv]_proj\.kernel", P(None, FSDP, TENSOR)),
    (r"text\.layers\.attn\.[qkv]_proj\.bias", P(None, TENSOR)),
    (r"text\.layers\.attn\.o_proj\.kernel", P(None, TENSOR, FSDP)),
    (r"text\.layers\.mlp\.(gate|up)_proj\.kernel", P(None, FSDP, TENSOR)),
    (r"text\.layers\.mlp\.down_proj\.kernel", P(None, TENSOR, FSDP)),
    (r"text\.layers\.(input|post_attention)_norm\.scale", P(None, None)),
    (r"text\.norm\.scale", P(None)),
    (r"lm_head\.kernel", P(FSDP, TENSOR)),
    (r"step_head\.kernel", P(FSDP, None)),
    (r"step_head\.bias", P(None)),
    (r"vision\.patch_embed\.kernel", P(None, FSDP)),
    (r"vision\.blocks\.norm[12]\.(scale|bias)", P(None, None)),
    (r"vision\.blocks\.attn\.(qkv|proj)\.kernel", P(None, FSDP, None)),
    (r"vision\.blocks\.attn\.(qkv|proj)\.bias", P(None, None)),
    (r"vision\.blocks\.mlp\.fc1\.kernel", P(None, FSDP, None)),
    (r"vision\.blocks\.mlp\.fc1\.bias", P(None, None)),
    (r"vision\.blocks\.mlp\.fc2\.kernel", P(None, None, FSDP)),
    (r"vision\.blocks\.mlp\.fc2\.bias", P(None, None)),
    (r"vision\.merger\.norm\.(scale|bias)", P(None)),
    (r"vision\.merger\.fc1\.kernel", P(FSDP, None)),
    (r"vision\.merger\.fc1\.bias", P(None)),
    (r"vision\.merger\.fc2\.kernel", P(None, FSDP)),
    (r"vision\.merger\.fc2\.bias", P(None)),
    # Adapters: A is cut as its kernel's rows, B as its kernel's columns, the rank never.
    (r"text\.layers\.(attn\.[qkv]|mlp\.(gate|up))_proj\.lora_a", P(None, FSDP, None)),
    (r"text\.layers\.(attn\.[qkv]|mlp\.(gate|up))_proj\.lora_b", P(None, None, TENSOR)),
    (r"text\.layers\.(attn\.o|mlp\.down)_proj\.lora_a", P(None, TENSOR, None)),
    (r"text\.layers\.(attn\.o|mlp\.down)_proj\.lora_b", P(None, None, FSDP)),
    (r"vision\.blocks\.(attn\.(qkv|proj)|mlp\.fc[12])\.lora_a", P(None, FSDP, None)),
    (r"vision\.blocks\.(attn\.(qkv|proj)|mlp\.fc[12])\.lora_b", P(None, None, None)),
    (r"(lm_head|vision\.patch_embed|vision\.merger\.fc[12])\.lora_a", P(FSDP, None)),
    (r"(lm_head|vision\.patch_embed|vision\.merger\.fc[12])\.lora_b", P(None, None)),
)

# Where `tensor` must divide a number of heads, not only of elements: the field of the model's config that
# counts them.
HEADS: tuple[tuple[str, str], ...] = (
    (r"text\.layers\.attn\.[qo]_proj\..*", "num_heads"),
    (r"text\.layers\.attn\.[kv]_proj\..*", "num_kv_heads"),
)


def partition_specs(
    shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], heads: Mapping[str, int]
) -> tuple[dict[str, PartitionSpec], tuple[str, ...]]:
    """The spec of every parameter, and one line for each axis that was left off because it does not divide.

    Args:
      shapes: dotted parameter path -> shape.
      sizes: mesh axis -> size (`mesh.shape`).
      heads: {"num_heads": .., "num_kv_heads": ..} of the model's config.

    Raises:
      MeshError: names every parameter that matches no rule, more than one, or a rule for another number of
        dimensions.
    """
    specs: dict[str, PartitionSpec] = {}
    errors: list[str] = []
    left_off: list[str] = []
    for path, shape in shapes.items():
        matches = [(pattern, spec) for pattern, spec in RULES if re.fullmatch(pattern, path)]
        if len(matches) != 1:
            which = " and ".join(pattern for pattern, _ in matches) or "none"
            errors.append(f"{path} {shape}: needs exactly one sharding rule, matches {which}")
        elif len(matches[0][1]) != len(shape):
            errors.append(f"{path} {shape}: rule {matches[0][0]} is for {len(matches[0][1])} dimensions")
        else:
            units = tuple(heads[field] for pattern, field in HEADS if re.fullmatch(pattern, path))
            specs[path], notes = _fit(path, shape, matches[0][1], sizes, units)
            left_off += notes
    if errors:
        raise MeshError("\n".join(errors))
    return specs, tuple(left_off)


def _fit(
    path: str, shape: tuple[int, ...], spec: PartitionSpec, sizes: Mapping[str, int], units: tuple[int, ...]
) -> tuple[PartitionSpec, list[str]]:
    fitted: list[str | None] = []
    notes: list[str] = []
    for dim, axis in enumerate(spec):
        if axis is None:
            fitted.append(None)
            continue
        pieces = (shape[dim], *(units if axis == TENSOR else ()))
        if all(count % sizes[axis] == 0 for count in pieces):
            fitted.append(axis)
        else:
            fitted.append(None)
            what = f"{shape[dim]} elements" + (f" in {units[0]} heads" if axis == TENSOR and units else "")
            notes.append(f"{path} dimension {dim} ({what}) is not cut by {axis}={sizes[axis]}")
    return PartitionSpec(*fitted), notes


def shardings(model: Any, mesh: Mesh) -> dict[str, Any]:
    """A NamedSharding for every `nnx.Param` of a model (concrete or from `nnx.eval_shape`), nested as its
    pure dict.

    Args:
      model: a module with the parameters of RULES, and a `config` that counts its heads.
      mesh: with the axes of `make_mesh`.

    Raises:
      MeshError: see `partition_specs`.
    """
    params = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    shapes = {".".join(map(str, path)): tuple(leaf.shape) for path, leaf in params.items()}
    heads = {"num_heads": model.config.num_heads, "num_kv_heads": model.config.num_kv_heads}
    specs, left_off = partition_specs(shapes, mesh.shape, heads)
    if left_off:
        _announce(left_off)
    placed = {path: NamedSharding(mesh, specs[".".join(map(str, path))]) for path in params}
    return traverse_util.unflatten_dict(placed)


@functools.cache  # once a process for each list, however often shardings are asked for
def _announce(left_off: tuple[str, ...]) -> None:
    log.info("kept whole, because the mesh axis does not divide them:\n  %s", "\n  ".join(left_off))


def init_sharded(make: Callable[[], Module], mesh: Mesh) -> Module:
    """Run `make` (which builds a model with random parameters) as one compiled program whose outputs lie on
    the mesh.

    No device ever holds a whole large parameter: XLA draws each device's part where it belongs.

    Raises:
      MeshError: see `partition_specs`.
    """
    abstract = nnx.eval_shape(make)
    graphdef, _ = nnx.split(abstract)
    placed = shardings(abstract, mesh)

    @functools.partial(jax.jit, out_shardings=placed)
    def draw() -> dict[str, Any]:
        return nnx.to_pure_dict(nnx.state(make(), nnx.Param))

    return nnx.merge(graphdef, nnx.State(draw()))


def place(model: Module, mesh: Mesh) -> None:
    """Move a model's parameters to where they belong on the mesh, in place (adapters added after loading,
    say).

    Raises:
      MeshError: see `partition_specs`.
    """
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    nnx.update(model, nnx.State(jax.device_put(params, shardings(model, mesh))))
