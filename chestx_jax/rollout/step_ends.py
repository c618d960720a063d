"""Where the steps of a reasoning end in its tokens."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from chestx_jax.data.chat import parse
from chestx_jax.rollout.spans import Span, TokenSpans


def step_ends(
    spans: TokenSpans, tokens: Sequence[int] | Int[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " S"], tuple[Span, ...]]:
    """Index of the last token of each step of a completion, and the steps' spans in its text (`chat.parse`).

    A step whose last character lies in a token that the step before it begins in ends at that token.
    """
    steps = parse(spans.text(tokens)).spans
    owner = spans.token_steps(tokens, steps)
    ends = np.searchsorted(np.maximum.accumulate(owner), np.arange(len(steps)), side="right") - 1
    return ends.astype(np.int32), steps
