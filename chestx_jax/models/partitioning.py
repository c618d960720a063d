"""The one place where the model meets the mesh: where activations lie, and how whole kernels are put together.

A kernel that `fsdp` cuts is gathered for its product, and its gradient is reduce-scattered to where the cut lies.
Left to itself, XLA for TPU sums whole gradients on every chip before it keeps the cut: twice the traffic.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Shaped

FSDP, TENSOR = "fsdp", "tensor"
BATCH_AXES = ("replica", FSDP)


def constrain_batch(x: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
    """Splits axis 0 over the batch axes of the mesh set with `jax.set_mesh`; no mesh, no change.

    Parameters are split over the same axes, so without this hint the compiler may gather activations
    instead of weights.
    """
    return _constrain(x, BATCH_AXES)


def constrain_images(x: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
    """As `constrain_batch`, and over `tensor` too where there are rows enough: the vision tower's kernels are whole
    on every chip of the tensor axis, which would otherwise all do the same work."""
    mesh = jax.sharding.get_abstract_mesh()
    everywhere = (*BATCH_AXES, TENSOR)
    enough = x.shape[0] % math.prod(mesh.shape[name] for name in everywhere if name in mesh.axis_names) == 0
    return _constrain(x, everywhere if enough else BATCH_AXES)


def _constrain(x: Array, wanted: tuple[str, ...]) -> Array:
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(name for name in wanted if name in mesh.axis_names)
    if not axes:
        return x
    return jax.lax.with_sharding_constraint(x, P(axes, *(None,) * (x.ndim - 1)))


def fsdp_parts(size: int) -> int:
    """Into how many parts `fsdp` cuts a dimension: the axis' size where it divides, else 1 (parallel/rules.py)."""
    mesh = jax.sharding.get_abstract_mesh()
    parts = mesh.shape[FSDP] if FSDP in mesh.axis_names else 1
    return parts if size % parts == 0 else 1


def per_chip(f: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`f` on each chip's rows and cuts (`jax.shard_map`), the tensor axis left to the compiler."""
    return jax.shard_map(
        f, in_specs=in_specs, out_specs=out_specs, axis_names=set(BATCH_AXES), check_vma=False
    )


def pin(kernel: Shaped[Array, "I O"], cut: int, units: int) -> Shaped[Array, "I O"]:
    """Within `per_chip`: holds the dimension that `fsdp` does not cut where `tensor` cuts it.

    Args:
      units: into how many pieces `tensor` may cut (heads, or elements); 1 is never.
    """
    tensor = jax.sharding.get_abstract_mesh().shape[TENSOR]
    if tensor == 1 or units % tensor or kernel.shape[1 - cut] % tensor:
        return kernel
    return jax.lax.with_sharding_constraint(kernel, P(TENSOR, None) if cut else P(None, TENSOR))


def gather(part: Shaped[Array, "I O"], cut: int, units: int) -> Shaped[Array, "I O"]:
    """Within `per_chip`: the whole kernel from every chip's part of dimension `cut`."""
    return pin(jax.lax.all_gather(pin(part, cut, units), FSDP, axis=cut, tiled=True), cut, units)


def scatter(whole: Float[Array, "I O"], cut: int, units: int, stages: tuple[int, ...]) -> Float[Array, "I O"]:
    """Within `per_chip`: the sum over `fsdp`, of which each chip keeps its part of dimension `cut`.

    Args:
      units: see `pin`.
      stages: factors of the axis' size (`scatter_stages`); each is one reduce-scatter.
    """
    # Along rows: a part of the last dimension is often narrower than the 128 lanes of a TPU.
    part = pin(whole, cut, units).T if cut else pin(whole, cut, units)
    chips = np.arange(math.prod(stages)).reshape(stages)
    for stage, size in enumerate(stages):
        groups = np.moveaxis(chips, stage, -1).reshape(-1, size).tolist() if len(stages) > 1 else None
        part = jax.lax.psum_scatter(part, FSDP, scatter_dimension=0, tiled=True, axis_index_groups=groups)
        part = pin(part, 0, units)
    return part.T if cut else part


def scatter_stages(parts: int) -> tuple[int, ...]:
    """One stage for a row of chips, two for a plane.

    A single reduce-scatter over a whole 8 x 8 slice becomes an all-reduce of everything in XLA for TPU (seen with
    libtpu 0.0.52 on v5e, v6e and v5p); over its rows, then its columns, it stays what it is.
    """
    rows = max(d for d in range(1, math.isqrt(parts) + 1) if parts % d == 0)
    return (parts,) if parts <= 8 or rows == 1 else (rows, parts // rows)


def matmul(
    rows: Float[Array, "N I"], kernel: Float[Array, "I O"], cut: int, units: int, out_dtype: Any = None
) -> Float[Array, "N O"]:
    """`rows @ kernel`, the rows split over the batch axes and the kernel cut by `fsdp` along dimension `cut`, by
    `tensor` along the other one, into pieces of whole `units`."""
    parts = fsdp_parts(kernel.shape[cut])
    if parts == 1:
        return jnp.matmul(rows, kernel, preferred_element_type=out_dtype)
    local = partial(_gathered_matmul, cut=cut, units=units, stages=scatter_stages(parts), out_dtype=out_dtype)
    split = P(BATCH_AXES, None)
    return per_chip(local, (split, kernel_spec(cut)), split)(rows, kernel)


def kernel_spec(cut: int) -> P:
    """How a kernel lies for `per_chip`."""
    return P(None, FSDP) if cut else P(FSDP, None)


def _gathered_matmul(
    rows: Array, part: Array, cut: int, units: int, stages: tuple[int, ...], out_dtype: Any
) -> Array:
    # Its own gradient, so that no remat policy, "none" included, keeps gathered kernels for the backward pass.
    @jax.custom_vjp
    def product(rows: Array, part: Array) -> Array:
        return jnp.matmul(rows, gather(part, cut, units), preferred_element_type=out_dtype)

    def forward(rows: Array, part: Array) -> tuple[Array, tuple[Array, Array]]:
        return product(rows, part), (rows, part)

    def backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
        rows, part = saved
        gradient = gradient.astype(rows.dtype)
        return jnp.matmul(gradient, gather(part, cut, units).T), scatter(
            jnp.matmul(rows.T, gradient), cut, units, stages
        )

    product.defvjp(forward, backward)
    return product(rows, part)
