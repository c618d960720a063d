"""What a reward function is: TRL's signature, and the numbers that may come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Completion = str | Sequence[dict[str, Any]]
"""A text, or TRL's conversational form: messages, of which the last one counts."""


class RewardError(ValueError):
    """A reward that cannot be found or that returns something else than rewards; the message names it."""


@dataclass(frozen=True)
class StepReward:
    """What one step of the reasoning is worth: `completion[start:end]`, characters.

    Attributes:
      link: it carries the reasoning, so that the steps before it led to it and share its blame. Not so a step that
        only restates, plans or adds what was not asked for: its value is its own affair.
    """

    start: int
    end: int
    value: float
    link: bool = True


class Stepwise(float):
    """The reward of a completion that also knows what each of its steps is worth, in the order of the text.

    It is a float, so that a reward with steps keeps TRL's signature.
    """

    steps: tuple[StepReward, ...]

    def __new__(cls, value: float, steps: Sequence[StepReward]) -> Stepwise:
        made = super().__new__(cls, value)
        made.steps = tuple(steps)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Stepwise, (float(self), self.steps)


class RewardFunction(Protocol):
    """`f(prompts=.., completions=.., **columns)`, TRL's signature, called with keywords alone.

    `columns` are the fields of the samples (`mixture.columns_of`), lists aligned with `completions`. One value
    a completion: None stands for "does not apply to this sample"; a `Stepwise` values the steps as well.
    """

    def __call__(self, *args: Any, **columns: Any) -> Sequence[float | None]: ...


class Together:
    """A base of reward functions that the processes of a run compute together: each calls it with its own completions,
    equally often, also where it has none. Other functions are called only where there are completions."""


def text_of(completion: Completion) -> str:
    """The words of a completion."""
    return completion if isinstance(completion, str) else completion[-1]["content"]
