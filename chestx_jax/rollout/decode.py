"""Prompts in, continuations out: prefill and decode in one compiled program."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from chestx_jax.models.partitioning import BATCH_AXES, constrain_batch
from chestx_jax.models.qwen2_vl import KVCache, Qwen2VL, one_cpu
from chestx_jax.rollout.sampling import Sampling, sample

GREEDY = Sampling()


class Generated(NamedTuple):
    """Continuations. `mask` is true up to and including the end token; off the mask the first of `eos_ids` fills
    the tokens, and log-probabilities, which are of the distribution that tokens were drawn from, are 0."""

    tokens: Int[Array, "B N"]
    mask: Bool[Array, "B N"]
    logprobs: Float[Array, "B N"]


class _Loop(NamedTuple):
    step: Int[Array, ""]  # tokens drawn so far
    done: Bool[Array, " B"]
    cache: Any  # what its `decode` reads: a KVCache, or an UnrolledCache
    out: Generated


def generate(
    model: Qwen2VL,
    batch: Mapping[str, Array],
    *,
    max_new_tokens: int,
    eos_ids: tuple[int, ...],
    sampling: Sampling = GREEDY,
    key: Key[Array, ""] | None = None,
    row_ids: Int[Array, " B"] | None = None,
    group_size: int = 1,
) -> Generated:
    """Continues every prompt of a batch until an end token, or for `max_new_tokens`.

    The whole is one program, compiled once for each shape and each setting of the static arguments: images
    and prompt are read once a prompt, its cache is shared by the group, and a loop draws a token a row
    until all rows have ended. Row b * group_size + g of the result is continuation g of prompt b.

    Args:
      model: reads the prompts; its weights are an argument of the program, not part of it.
      batch: one sample a row, padded left or right (see `Qwen2VL`).
      eos_ids: a row ends with the first of these that it draws.
      sampling: how tokens are drawn.
      key: needed when temperature > 0. Row r draws from `fold_in(key, row_ids[r])`, so a row's tokens do not
        depend on the rows beside it.
      row_ids: one number a row of the result, 0, 1, 2.. when absent; give the global ones when a set of
        prompts is generated in several batches.
      group_size: continuations of each prompt.

    Raises:
      ValueError: an argument is out of range, or temperature > 0 comes without a key.
    """
    rows = batch["tokens"].shape[0] * group_size
    if max_new_tokens < 1 or group_size < 1:
        raise ValueError(f"max_new_tokens {max_new_tokens} and group_size {group_size} must be at least 1")
    if key is None and sampling.temperature > 0:
        raise ValueError("key: needed when temperature > 0")
    if row_ids is not None and row_ids.shape != (rows,):
        raise ValueError(f"row_ids: shape {row_ids.shape}, expected ({rows},)")
    return _generate(
        model,
        dict(batch),
        jax.random.key(0) if key is None else key,
        jnp.arange(rows) if row_ids is None else jnp.asarray(row_ids),
        max_new_tokens=max_new_tokens,
        eos_ids=tuple(eos_ids),
        sampling=sampling,
        group_size=group_size,
    )


@partial(jax.jit, static_argnames=("max_new_tokens", "eos_ids", "sampling", "group_size"))
def _generate(
    model: Qwen2VL,
    batch: Mapping[str, Array],
    key: Key[Array, ""],
    row_ids: Int[Array, " B"],
    *,
    max_new_tokens: int,
    eos_ids: tuple[int, ...],
    sampling: Sampling,
    group_size: int,
) -> Generated:
    row_keys = jax.vmap(partial(jax.random.fold_in, key))(row_ids)
    # the last token drawn is never read back: it needs no slot, but the loop needs one to be traced
    logits, cache = prefilled(model, batch, group_size, max(1, max_new_tokens - 1))
    rows = logits.shape[0]

    def draw(logits: Array, loop: _Loop) -> _Loop:
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, loop.step)
        tokens, logprobs = sample(logits, keys, sampling)
        out = Generated(
            tokens=loop.out.tokens.at[:, loop.step].set(jnp.where(loop.done, fill, tokens)),
            mask=loop.out.mask.at[:, loop.step].set(~loop.done),
            logprobs=loop.out.logprobs.at[:, loop.step].set(jnp.where(loop.done, 0.0, logprobs)),
        )
        ended = jnp.isin(tokens, jnp.asarray(eos_ids, jnp.int32))
        return _Loop(loop.step + 1, loop.done | ended, loop.cache, out)

    def unfinished(loop: _Loop) -> Array:
        return (loop.step < max_new_tokens) & ~jnp.all(loop.done)

    def write(decode: Callable[[Array, Any], tuple[Array, Any]], start: _Loop) -> Generated:
        def step(loop: _Loop) -> _Loop:
            logits, cache = decode(loop.out.tokens[:, loop.step - 1], loop.cache)
            return draw(logits, loop._replace(cache=cache))

        return jax.lax.while_loop(unfinished, step, start).out

    def write_anywhere(model: Qwen2VL, start: _Loop) -> Generated:
        return write(model.decode, start)

    def write_on_a_cpu(model: Qwen2VL, start: _Loop) -> Generated:
        if not one_cpu.large(model.text):
            return write(partial(one_cpu.decode, model, one_cpu.turned(model.text.layers)), start)
        start = start._replace(cache=one_cpu.unroll_cache(start.cache))
        return write(partial(one_cpu.decode_unrolled, model, one_cpu.unroll(model.text)), start)

    fill = eos_ids[0] if eos_ids else 0
    shape = (rows, max_new_tokens)
    blank = Generated(jnp.full(shape, fill, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32))
    blank = jax.tree.map(constrain_batch, blank)
    start = _Loop(jnp.asarray(0), jnp.zeros(rows, bool), cache, blank)
    first = draw(logits, start)
    if jax.sharding.get_abstract_mesh().size > 1:  # layers for one CPU are not cut over devices
        return write_anywhere(model, first)
    return jax.lax.platform_dependent(model, first, cpu=write_on_a_cpu, default=write_anywhere)


def prefilled(
    model: Qwen2VL, batch: Mapping[str, Array], group_size: int, slots: int
) -> tuple[Float[Array, "R V"], KVCache]:
    """Reads each prompt once; logits of the next token of every row of its group, and the cache that they share."""
    logits, cache = model.prefill(batch, slots, group_size)
    return constrain_batch(jnp.repeat(logits, group_size, axis=0)), _constrain_cache(cache)


def _constrain_cache(cache: KVCache) -> KVCache:
    """Prompts and rows over the batch axes of the mesh; the heads as the keys' and values' kernels are cut."""
    axes = tuple(name for name in BATCH_AXES if name in jax.sharding.get_abstract_mesh().axis_names)
    if not axes:
        return cache
    spec = PartitionSpec(None, axes, PartitionSpec.UNCONSTRAINED, None, None)
    names = ("prompt_k", "prompt_v", "k", "v")
    places = {name: jax.lax.with_sharding_constraint(getattr(cache, name), spec) for name in names}
    return cache._replace(**places, prompt_seen=constrain_batch(cache.prompt_seen))
