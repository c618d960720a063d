"""The format reward: the answer grammar to the letter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chestx_jax.rewards.reading import parse_once
from chestx_jax.rewards.signature import Completion, text_of


def format_reward(prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any) -> list[float]:
    """1 for `<think> .. </think><answer> .. </answer>` and nothing else, 0 for all other texts.

    One think and one answer, neither empty, in this order, with white space between and around them and the
    model's end token behind (rule "strict" of `data.chat.parse`).
    """
    parsed = (parse_once(text_of(completion)) for completion in completions)
    return [float(one.rule == "strict" and bool(one.steps)) for one in parsed]
