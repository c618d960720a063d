"""Which step of the reasoning each token of a completion belongs to."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from chestx_jax.data.chat import parse
from chestx_jax.rollout.spans import Span, TokenSpans


def steps_of(
    spans: TokenSpans, tokens: Sequence[int] | Int[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " N"], tuple[Span, ...]]:
    """The step of each token of a completion, -1 for none, and the steps' spans in its text (`chat.parse`)."""
    found = parse(spans.text(tokens)).spans
    return spans.token_steps(tokens, found), found
