"""Linear, norms, attention over stacked layers, and what is kept for the backward pass."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Bool, Float

from chestx_jax.models.partitioning import matmul


@dataclasses.dataclass(frozen=True)
class Init:
    """What every module needs at birth. `stack` is the leading shape of layers that are scanned over."""

    rngs: nnx.Rngs
    std: float
    dtype: Any
    param_dtype: Any
    stack: tuple[int, ...] = ()

    def stacked(self, layers: int) -> "Init":
        return dataclasses.replace(self, stack=(layers,))

    def normal(self, *shape: int) -> nnx.Param:
        draw = jax.random.normal(self.rngs.params(), (*self.stack, *shape), jnp.float32)
        return nnx.Param((self.std * draw).astype(self.param_dtype))

    def constant(self, value: float, *shape: int) -> nnx.Param:
        return nnx.Param(jnp.full((*self.stack, *shape), value, self.param_dtype))


class Linear(nnx.Module):
    """`torch.nn.Linear` with the kernel as [in, out] (or `turned`), and room for a LoRA adapter (models/lora.py).

    `cut` is the kernel's dimension that `fsdp` cuts; the other one `tensor` may cut into pieces of whole `units`
    (heads; elements when None; 1 is never), as parallel/rules.py says.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        init: Init,
        bias: bool = True,
        cut: int = 0,
        units: int | None = None,
    ):
        self.kernel = init.normal(fan_in, fan_out)
        self.bias = init.constant(0.0, fan_out) if bias else None
        self.lora_a: nnx.Param | None = nnx.data(None)
        self.lora_b: nnx.Param | None = nnx.data(None)
        self.lora_scale = 0.0
        self.turned = False
        self.dtype, self.cut = init.dtype, cut
        self.units = units or (fan_in, fan_out)[1 - cut]

    def __call__(self, x: Float[Array, "*batch I"], out_dtype: Any = None) -> Float[Array, "*batch O"]:
        # One matrix product over all rows: with batch and time apart, XLA transposes whole activations in the
        # backward pass (on a CPU the gated MLP's gradient takes 2.4 times as long).
        rows = x.reshape(-1, x.shape[-1])
        kernel = self.kernel[...].astype(self.dtype)
        if self.turned:
            y = turned_matmul(rows, kernel, out_dtype)
        else:
            y = matmul(rows, kernel, self.cut, self.units, out_dtype)
        if self.bias is not None:
            y = y + self.bias[...].astype(y.dtype)
        if self.lora_a is not None and self.lora_b is not None:
            low = jnp.matmul(rows, self.lora_a[...].astype(self.dtype)) * self.lora_scale
            y = y + jnp.matmul(low, self.lora_b[...].astype(self.dtype), preferred_element_type=y.dtype)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def turn(self) -> None:
        """Keep the kernel as [out, in] from here on, for `turned_matmul`."""
        turned = jnp.swapaxes(self.kernel[...].astype(self.dtype), -1, -2)
        in_order = Layout(major_to_minor=tuple(range(turned.ndim)))  # turned in memory, not in name only
        self.kernel.set_value(with_layout_constraint(turned, in_order))
        self.turned = True

    def merged_kernel(self) -> Float[Array, "I O"]:
        """The kernel with its adapter added, in the parameters' type."""
        kernel = self.kernel[...]
        if self.lora_a is None or self.lora_b is None:
            return kernel
        adapter = jnp.matmul(self.lora_a[...].astype(jnp.float32), self.lora_b[...].astype(jnp.float32))
        return (kernel + self.lora_scale * adapter).astype(kernel.dtype)


def linears(module: nnx.Module) -> Iterator[tuple[str, Linear]]:
    """Every linear layer with its dotted path."""
    for path, node in nnx.iter_graph(module):
        if isinstance(node, Linear):
            yield ".".join(map(str, path)), node


def turned_matmul(
    rows: Float[Array, "N I"], kernel: Float[Array, "O I"], out_dtype: Any = None
) -> Float[Array, "N O"]:
    """`rows @ kernel.T` for few rows on a CPU, up to twice as fast as with a kernel [in, out]: XLA packs the right side
    of a product anew every time, and here that is the small one."""
    columns = jax.lax.optimization_barrier(rows.T)  # the barriers: or XLA would turn it all back
    return jax.lax.optimization_barrier(jnp.matmul(kernel, columns, preferred_element_type=out_dtype)).T


class RMSNorm(nnx.Module):
    """`Qwen2VLRMSNorm`, all in float32."""

    def __init__(self, width: int, eps: float, init: Init):
        self.scale = init.constant(1.0, width)
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * self.scale[...].astype(jnp.float32)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """`torch.nn.LayerNorm` with eps 1e-6 (the vision tower's), all in float32."""

    def __init__(self, width: int, init: Init):
        self.scale = init.constant(1.0, width)
        self.bias = init.constant(0.0, width)

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        x32 = x.astype(jnp.float32)
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + 1e-6)
        x32 = x32 * self.scale[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)
        return x32.astype(x.dtype)


def split_heads(x: Float[Array, "B T KH"], heads: int) -> Float[Array, "B K T H"]:
    batch, length, _ = x.shape
    return x.reshape(batch, length, heads, -1).swapaxes(1, 2)


# Scores of one prompt's rows that exist at a time: 1 GiB in float32, as far as `tensor` does not cut the heads.
SCORES = 2**28
Block = tuple[Float[Array, "P K H S"], Float[Array, "P K S H"], Bool[Array, "P T|1 S"]]


def attend(q: Float[Array, "B N T H"], *blocks: Block) -> Float[Array, "B T NH"]:
    """Softmax attention of grouped queries over one or more (keys, values, mask) blocks of the context.

    Training has one block, decoding three: the prompt, what was written since, the token itself; so every cache is
    read where it lies. N query heads share K key heads without repeating them, and the B = P * G rows of a group share
    the P rows of a block, whose mask then is the same for all their queries ([P, 1, S]): on a CPU one product of
    G times as many rows is far faster than G of them. Keys have their slots last, as a product with few queries reads
    them fastest there. Scores and softmax are float32. A row whose mask is empty gives a finite average, never NaN:
    masked scores are large, not infinite.

    Where a group has more than SCORES of them, its rows are read some at a time, in the backward pass too: at 8 x 2,048
    tokens after 2,048 the scores of one layer of the 7B model would take 7.5 GB.
    """
    rows, heads, length, _ = q.shape
    prompts, context = min(len(k) for k, _, _ in blocks), sum(k.shape[3] for k, _, _ in blocks)
    group = rows // prompts
    parts = next(
        n
        for n in range(1, group + 1)
        if n == group or (group % n == 0 and group // n * heads * length * context <= SCORES)
    )
    if parts == 1:
        return _attend(q, *blocks)

    def split(x: Array) -> Array:
        x = x.reshape(prompts, parts, group // parts, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(parts, rows // parts, *x.shape[3:])

    own = [tuple(split(x) for x in block) if len(block[0]) == rows else None for block in blocks]

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def some(part: tuple[Array, list[Any]]) -> Array:
        return _attend(part[0], *(mine or shared for mine, shared in zip(part[1], blocks, strict=True)))

    out = jax.lax.map(some, (split(q), own)).reshape(parts, prompts, group // parts, length, -1)
    return out.swapaxes(0, 1).reshape(rows, length, -1)


def _attend(q: Float[Array, "B N T H"], *blocks: Block) -> Float[Array, "B T NH"]:
    rows, heads, length, head_dim = q.shape
    kv_heads = blocks[0][0].shape[1]
    q = q.reshape(rows, kv_heads, -1, head_dim)
    low = 0.5 * float(jnp.finfo(jnp.float32).min)

    def score(k: Array, mask: Array) -> Array:
        raw = jnp.einsum("bkmh,bkhs->bkms", _share(q, len(k)), k, preferred_element_type=jnp.float32)
        apart = raw.reshape(len(k), kv_heads, raw.shape[2] // length, length, k.shape[3])
        seen = jnp.where(mask[:, None, None], apart * head_dim**-0.5, low)
        return _unshare(seen.reshape(raw.shape), rows)

    weights = jax.nn.softmax(jnp.concatenate([score(k, mask) for k, _, mask in blocks], axis=-1), axis=-1)
    weights = weights.astype(q.dtype)
    ends = [sum(k.shape[3] for k, _, _ in blocks[: i + 1]) for i in range(len(blocks) - 1)]
    parts = zip(jnp.split(weights, ends, axis=-1), blocks, strict=True)
    first, *rest = (
        _unshare(jnp.einsum("bkms,bksh->bkmh", _share(w, len(v)), v), rows) for w, (_, v, _) in parts
    )
    out = sum(rest, first).reshape(rows, heads, length, head_dim)
    return out.swapaxes(1, 2).reshape(rows, length, heads * head_dim)


def _share(x: Float[Array, "B K M H"], prompts: int) -> Float[Array, "P K GM H"]:
    """The rows of a group, B = P * G, as more queries of one row."""
    rows, heads, queries, width = x.shape
    if rows == prompts:
        return x
    group = rows // prompts
    x = x.reshape(prompts, group, heads, queries, width).swapaxes(1, 2)
    return x.reshape(prompts, heads, group * queries, width)


def _unshare(x: Float[Array, "P K GM H"], rows: int) -> Float[Array, "B K M H"]:
    """The inverse of `_share`."""
    prompts, heads, queries, width = x.shape
    if rows == prompts:
        return x
    group = rows // prompts
    x = x.reshape(prompts, heads, group, queries // group, width).swapaxes(1, 2)
    return x.reshape(rows, heads, queries // group, width)


# Names that layers give their expensive results (`checkpoint_name`). What a layer puts out needs none: the scan keeps
# the input of every layer, and nothing else of the one before.
TEXT_NAMES = ("qkv", "attention", "o_proj")
VISION_NAMES = ("vision_qkv", "vision_attention", "vision_o_proj")
SAVED_NAMES = (*TEXT_NAMES, "up_proj", "gate_proj", *VISION_NAMES)
_keep = jax.checkpoint_policies.save_only_these_names
POLICIES: dict[str, Callable[..., Any] | None] = {
    "full": None,
    "minimal": _keep(*TEXT_NAMES, *VISION_NAMES),
    # The language model's up projection costs more to redo than the whole vision tower, and takes as much memory.
    "mlp": _keep(*TEXT_NAMES, "up_proj"),
    # All of these: what elementwise work makes of them is cheaper to redo than to write and read (on a CPU too).
    "most": _keep(*SAVED_NAMES),
}
REMAT_POLICIES = ("none", *POLICIES)


def named(x: Array, name: str) -> Array:
    """`checkpoint_name`, but a misspelt name is an error instead of a silent loss of the saving."""
    if name not in SAVED_NAMES:
        raise ValueError(f"checkpoint name {name!r} is in no remat policy: {SAVED_NAMES}")
    return checkpoint_name(x, name)


def scan_layers(step: Callable[..., tuple[Any, Any]], x: Any, layers: Any, remat: str) -> tuple[Any, Any]:
    """`lax.scan` of `step(x, layer) -> (x, out)` over stacked layers, rematerialised by the named policy."""
    if remat != "none":
        step = functools.partial(jax.checkpoint, policy=POLICIES[remat], prevent_cse=False)(step)
    return jax.lax.scan(step, x, layers)
