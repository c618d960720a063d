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
EVERYWHERE = (*BATCH_AXES, TENSOR)


def constrain_batch(x: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
    """Splits axis 0 over the batch axes of the mesh set with `jax.set_mesh`; no mesh, no change.

    Parameters are split over the same axes, so without this hint the compiler may gather activations
    instead of weights.
    """
    return _constrain(x, BATCH_AXES)


def constrain_images(x: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
    """As `constrain_batch`, and over `tensor` too where there are rows enough: the vision tower's kernels are whole
    on every chip of the tensor axis, which would otherwise all do the same work."""
    return _constrain(x, image_axes(x.shape[0]))


def image_axes(rows: int) -> tuple[str, ...]:
    """The mesh axes that split this many rows of patches (`constrain_images`)."""
    return EVERYWHERE if rows % mesh_size(*EVERYWHERE) == 0 else BATCH_AXES


def _constrain(x: Array, wanted: tuple[str, ...]) -> Array:
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(name for name in wanted if name in mesh.axis_names)
    if not axes:
        return x
    return jax.lax.with_sharding_constraint(x, P(axes, *(None,) * (x.ndim - 1)))


def fsdp_parts(size: int) -> int:
    """Into how many parts `fsdp` cuts a dimension: the axis' size where it divides, else 1 (parallel/rules.py)."""
    parts = mesh_size(FSDP)
    return parts if size % parts == 0 else 1


def mesh_size(*axes: str) -> int:
    """How many chips the mesh that is set has along `axes`; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[name] for name in axes if name in mesh.axis_names)


def per_chip(f: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`f` on each chip's rows and cuts. Every axis is by hand: XLA undoes the cuts of an axis left to it before each
    exchange along another one."""
    return jax.shard_map(f, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def gather(part: Shaped[Array, "I O"], cut: int) -> Shaped[Array, "I O"]:
    """Within `per_chip`: the whole kernel from every chip's part of dimension `cut`."""
    return jax.lax.all_gather(part, FSDP, axis=cut, tiled=True)


def scatter(whole: Float[Array, "I O"], cut: int, stages: tuple[int, ...]) -> Float[Array, "I O"]:
    """Within `per_chip`: the sum over `fsdp`, of which each chip keeps its part of dimension `cut`.

    Args:
      stages: factors of the axis' size (`scatter_stages`); each is one reduce-scatter.
    """
    # Along rows: a part of the last dimension is often narrower than the 128 lanes of a TPU.
    part = whole.T if cut else whole
    chips = np.arange(math.prod(stages)).reshape(stages)
    for stage, size in enumerate(stages):
        groups = np.moveaxis(chips, stage, -1).reshape(-1, size).tolist() if len(stages) > 1 else None
        part = jax.lax.psum_scatter(part, FSDP, scatter_dimension=0, tiled=True, axis_index_groups=groups)
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
    """`rows @ kernel`, the rows split over the batch axes and the kernel cut by `fsdp` along dimension `cut`.

    Args:
      units: into how many pieces (heads, or elements) `tensor` may cut the other dimension, where it divides them;
        with 1 it splits the rows instead.
    """
    parts, tensor = fsdp_parts(kernel.shape[cut]), mesh_size(TENSOR)
    if parts == 1:
        return _product(_same, _same, out_dtype)(rows, kernel)
    inner = TENSOR if units > 1 and units % tensor == 0 and kernel.shape[1 - cut] % tensor == 0 else None
    batch = EVERYWHERE if units == 1 and rows.shape[0] % mesh_size(*EVERYWHERE) == 0 else BATCH_AXES
    product = _product(
        partial(gather, cut=cut), partial(scatter, cut=cut, stages=scatter_stages(parts)), out_dtype
    )
    if not cut:  # column-parallel where tensor cuts: each chip its columns of the result
        return per_chip(product, (P(batch, None), P(FSDP, inner)), P(batch, inner))(rows, kernel)
    if inner is None:
        return per_chip(product, (P(batch, None), P(None, FSDP)), P(batch, None))(rows, kernel)
    # row-parallel: each chip a summand of the result (Megatron-LM, arXiv 1909.08053, section 3)
    summed = per_chip(
        lambda rows, part: jax.lax.psum(product(rows, part), TENSOR),
        (P(batch, inner), P(inner, FSDP)),
        P(batch, None),
    )
    return summed(rows, kernel)


def kernel_gradient(
    rows: Float[Array, "N I"], gradient: Float[Array, "N O"], dtype: Any = None
) -> Float[Array, "I O"]:
    """`rows.T @ gradient`, in `dtype` where given.

    On a CPU the smaller operand is transposed first: XLA's product with a transposed left side takes twice as long.
    """

    def plain(rows: Array, gradient: Array) -> Array:
        return jnp.matmul(rows.T, gradient, preferred_element_type=dtype)

    def transposed_first(rows: Array, gradient: Array) -> Array:
        if rows.shape[1] > gradient.shape[1]:
            return jax.lax.optimization_barrier(transposed_first(gradient, rows)).T
        return jnp.matmul(jax.lax.optimization_barrier(rows.T), gradient, preferred_element_type=dtype)

    return jax.lax.platform_dependent(rows, gradient, cpu=transposed_first, default=plain)


def _same(x: Array) -> Array:
    return x


def _product(
    whole: Callable[[Array], Array], keep: Callable[[Array], Array], out_dtype: Any
) -> Callable[[Array, Array], Array]:
    """(rows, part) -> rows @ whole(part); `keep` makes the part's gradient of the whole kernel's."""

    # Its own gradient, so that no remat policy, "none" included, keeps gathered kernels for the backward pass.
    @jax.custom_vjp
    def product(rows: Array, part: Array) -> Array:
        return jnp.matmul(rows, whole(part), preferred_element_type=out_dtype)

    def forward(rows: Array, part: Array) -> tuple[Array, tuple[Array, Array]]:
        return product(rows, part), (rows, part)

    def backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
        rows, part = saved
        gradient = gradient.astype(rows.dtype)
        return jnp.matmul(gradient, whole(part).T), keep(kernel_gradient(rows, gradient))

    product.defvjp(forward, backward)
    return product
