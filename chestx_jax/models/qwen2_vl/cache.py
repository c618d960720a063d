"""Keys and values of the tokens already read, in slots of fixed number."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class KVCache(NamedTuple):
    """Slot s of row b holds a token of segment `segments[b, s]`; segment 0 marks padding and free slots.

    All rows write the same slot, `length`, whatever the length of their prompt: rotary positions travel
    separately (`position`), so the holes that padding leaves cost a slot and nothing else.
    """

    k: Float[Array, "L B K S H"]
    v: Float[Array, "L B K S H"]
    segments: Int[Array, "B S"]
    segment: Int[Array, " B"]  # the segment that a row continues
    position: Int[Array, " B"]  # the next token's position, on all three M-RoPE streams
    length: Int[Array, ""]  # slots in use

    def repeat(self, times: int) -> "KVCache":
        """Every row `times` times in a row, for a group of continuations of the same prompt."""
        return KVCache(
            k=jnp.repeat(self.k, times, axis=1),
            v=jnp.repeat(self.v, times, axis=1),
            segments=jnp.repeat(self.segments, times, axis=0),
            segment=jnp.repeat(self.segment, times, axis=0),
            position=jnp.repeat(self.position, times, axis=0),
            length=self.length,
        )

    def append(self, k: Float[Array, "L B K 1 H"], v: Float[Array, "L B K 1 H"]) -> "KVCache":
        """Writes one token of every row into the next slot; the caller sees to it that there is one."""
        return KVCache(
            k=jax.lax.dynamic_update_slice_in_dim(self.k, k, self.length, axis=3),
            v=jax.lax.dynamic_update_slice_in_dim(self.v, v, self.length, axis=3),
            segments=jax.lax.dynamic_update_slice_in_dim(
                self.segments, self.segment[:, None], self.length, axis=1
            ),
            segment=self.segment,
            position=self.position + 1,
            length=self.length + 1,
        )


def from_prompt(
    k: Float[Array, "L B K T H"],
    v: Float[Array, "L B K T H"],
    segments: Int[Array, "B T"],
    positions: Int[Array, "B 3 T"],
    capacity: int,
) -> KVCache:
    """The cache after a prompt of T slots, with room for `capacity - T` more tokens. One sample a row."""
    free = capacity - k.shape[3]
    room = ((0, 0), (0, 0), (0, 0), (0, free), (0, 0))
    real = segments > 0
    return KVCache(
        k=jnp.pad(k, room),
        v=jnp.pad(v, room),
        segments=jnp.pad(segments, ((0, 0), (0, free))),
        segment=jnp.max(segments, axis=1),
        position=jnp.max(jnp.where(real[:, None], positions, -1), axis=(1, 2)) + 1,
        length=jnp.asarray(segments.shape[1], jnp.int32),
    )
