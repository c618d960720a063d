"""Cross-entropy over the answer tokens, in chunks along time.

The logits of a chunk are made, used and forgotten (and made again in the backward pass), so a full
[B, T, vocabulary] float32 array never exists.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int


@struct.dataclass
class TokenSums:
    """Sums over target tokens; divide by `count` for means. Sums add up exactly over micro-batches."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def zero(cls) -> "TokenSums":
        """The sums over no token."""
        return cls(loss=jnp.zeros(()), correct=jnp.zeros(()), count=jnp.zeros(()))

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return jax.tree.map(jnp.add, self, other)


def chunked_cross_entropy(
    logits_fn: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    hidden: Float[Array, "B T D"],
    tokens: Int[Array, "B T"],
    loss_mask: Bool[Array, "B T"],
    chunk: int,
) -> TokenSums:
    """Sum of -log p(token) over the tokens that `loss_mask` marks as targets.

    The hidden state at index t - 1 predicts the token at index t, so a mask at index 0 asks for what nothing
    can predict and is ignored (the pipeline never sets it).

    Args:
      logits_fn: float32 logits of hidden states.
      hidden: final-norm states.
      tokens: token ids.
      loss_mask: True where the token is a target.
      chunk: positions whose logits exist at a time; the last chunk is padded with masked positions.
    """
    hidden, targets, mask = hidden[:, :-1], tokens[:, 1:], loss_mask[:, 1:].astype(jnp.float32)
    length = hidden.shape[1]
    chunk = min(chunk, length)
    padding = -length % chunk

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(x.shape[0], -1, chunk, *x.shape[2:]).swapaxes(0, 1)

    @jax.checkpoint
    def step(sums: TokenSums, part: tuple[Array, Array, Array]) -> tuple[TokenSums, None]:
        h, y, m = part
        logits = logits_fn(h)
        picked = jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
        loss = jax.nn.logsumexp(logits, axis=-1) - picked
        hit = (jnp.argmax(logits, axis=-1) == y).astype(jnp.float32)
        return sums + TokenSums(loss=(loss * m).sum(), correct=(hit * m).sum(), count=m.sum()), None

    sums, _ = jax.lax.scan(step, TokenSums.zero(), (split(hidden), split(targets), split(mask)))
    return sums
