"""The outcome reward: whether the answer is right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from chestx_jax.data.chat import label_set, predicted_option
from chestx_jax.data.schema import LETTERS
from chestx_jax.rewards.answers import concepts, set_score
from chestx_jax.rewards.reading import parse_once
from chestx_jax.rewards.signature import Completion, text_of

_HEDGE = re.compile(r"\bor\b|\?", re.IGNORECASE)


def outcome_reward(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    options: Sequence[Sequence[str] | None],
    answer: Sequence[str],
    **columns: Any,
) -> list[float]:
    """How right the answers are, 0 to 1; columns of the samples: `options`, `answer`.

    With options: the option named by its letter or its text; the F1 of its labels against those of the right
    one, so 1 or 0 where options are single labels. No option, or more than one ("A or B"), earns 0.
    Open questions: the F1 of the concepts named (`answers.concepts`); a hedge ("edema or pneumonia") earns 0.
    """
    return [
        _outcome(parse_once(text_of(completion)).answer, choices, right)
        for completion, choices, right in zip(completions, options, answer, strict=True)
    ]


def _outcome(said: str | None, options: Sequence[str] | None, right: str) -> float:
    if said is None:
        return 0.0
    if options is None:
        return 0.0 if _HEDGE.search(said) else set_score(concepts(said), concepts(right)).f1
    letter = predicted_option(said, tuple(options))
    if letter is None:
        return 0.0
    chosen, gold = (label_set(options[LETTERS.index(one)]) for one in (letter, right))
    return set_score(chosen, gold).f1
