"""Keys and values of the tokens already read, in slots of fixed number."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.models.qwen2_vl.layers import Block


class KVCache(NamedTuple):
    """P prompts as they were read, and what each of their B = P * G continuations has added since.

    The rows of a group share their prompt: row p * G + g continues prompt p. All rows write the same slot, `length`,
    whatever the length of their prompt: rotary positions travel separately (`position`).
    """

    prompt_k: Float[Array, "L P K H T"]
    prompt_v: Float[Array, "L P K T H"]
    prompt_seen: Bool[Array, "P 1 T"]  # False where the prompt is padded
    k: Float[Array, "L B K H S"]
    v: Float[Array, "L B K S H"]
    position: Int[Array, " B"]  # the next token's position, on all three M-RoPE streams
    length: Int[Array, ""]  # slots in use, of S

    @property
    def seen(self) -> Bool[Array, "1 1 S"]:
        """Which slots of the continuations are in use."""
        return _in_use(self.k, self.length)

    def append(self, k: Float[Array, "L B K H 1"], v: Float[Array, "L B K 1 H"]) -> "KVCache":
        """Writes one token of every row into the next slot; the caller sees to it that there is one."""
        k, v = _written((self.k, self.v), (k, v), self.length)
        return self._replace(k=k, v=v, position=self.position + 1, length=self.length + 1)


class Slots(NamedTuple):
    """The slots of one layer, to write a token of every row into before it is attended to."""

    k: Float[Array, "B K H S"]
    v: Float[Array, "B K S H"]
    length: Int[Array, ""]  # slots in use

    def write(self, k: Float[Array, "B K H 1"], v: Float[Array, "B K 1 H"]) -> Block:
        """The slots with one more token, and which are in use now."""
        return *_written((self.k, self.v), (k, v), self.length), _in_use(self.k, self.length + 1)


def _written(slots: tuple[Array, Array], new: tuple[Array, Array], slot: Array) -> tuple[Array, Array]:
    """Keys [.., H, S] and values [.., S, H] with one token more."""
    k, v = (
        jax.lax.dynamic_update_slice_in_dim(whole, token, slot, axis)
        for whole, token, axis in zip(slots, new, (-1, -2), strict=True)
    )
    return k, v


def _in_use(k: Float[Array, "*stack H S"], length: Int[Array, ""]) -> Bool[Array, "1 1 S"]:
    return (jnp.arange(k.shape[-1]) < length)[None, None]


def from_prompt(
    k: Float[Array, "L P K H T"],
    v: Float[Array, "L P K T H"],
    segments: Int[Array, "P T"],
    positions: Int[Array, "P 3 T"],
    group: int,
    slots: int,
) -> KVCache:
    """The cache after prompts of one sample a row, with room for `slots` more tokens in each of `group`
    continuations of each prompt."""
    layers, prompts, heads, width, _ = k.shape
    rows, real = prompts * group, segments > 0
    start = jnp.max(jnp.where(real[:, None], positions, -1), axis=(1, 2)) + 1
    return KVCache(
        prompt_k=k,
        prompt_v=v,
        prompt_seen=real[:, None],
        k=jnp.zeros((layers, rows, heads, width, slots), k.dtype),
        v=jnp.zeros((layers, rows, heads, slots, width), v.dtype),
        position=jnp.repeat(start, group),
        length=jnp.asarray(0, jnp.int32),
    )
