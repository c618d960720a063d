"""Several rewards as one: clipped, weighted by a schedule, summed, with the numbers to log."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from chestx_jax.data.schema import FIELDS, Sample
from chestx_jax.rewards.lookup import reward
from chestx_jax.rewards.signature import (
    Completion,
    RewardError,
    RewardFunction,
    StepReward,
    Stepwise,
    Together,
)

SETTINGS = ("function", "weight", "clip", "schedule")


@dataclass(frozen=True)
class Component:
    """One reward of a mixture.

    Attributes:
      weight: of the (clipped) reward in the sum, at schedule 1.
      clip: the least and the greatest value that counts.
      schedule: (step, factor) points of a piecewise linear factor on the weight, constant before the first
        and after the last: ((0, 0.0), (100, 1.0)) ramps up over 100 steps. Empty: always 1.
    """

    name: str
    function: RewardFunction
    weight: float
    clip: tuple[float, float]
    schedule: tuple[tuple[int, float], ...] = ()

    def weight_at(self, step: int) -> float:
        """The weight at a training step."""
        if not self.schedule:
            return self.weight
        steps, factors = zip(*self.schedule, strict=True)
        return self.weight * float(np.interp(step, steps, factors))


@dataclass(frozen=True)
class Rewards:
    """The rewards of N completions.

    Attributes:
      total: the weighted sum; a reward that does not apply adds nothing.
      components: name -> clipped, unweighted values; NaN where the reward does not apply.
      steps: name -> the values of the steps of each completion, None where the reward gives none. Neither
        clipped nor weighted.
      weights: name -> the weight at this training step.
    """

    total: Float[np.ndarray, " N"]
    components: Mapping[str, Float[np.ndarray, " N"]]
    steps: Mapping[str, tuple[tuple[StepReward, ...] | None, ...]]
    weights: Mapping[str, float]

    @classmethod
    def joined(cls, parts: Sequence[Rewards]) -> Rewards:
        """The rewards of several lots of completions of one training step as those of all."""
        first = parts[0]
        return cls(
            total=np.concatenate([part.total for part in parts]),
            components={
                name: np.concatenate([part.components[name] for part in parts]) for name in first.components
            },
            steps={
                name: tuple(itertools.chain(*(part.steps[name] for part in parts))) for name in first.steps
            },
            weights=first.weights,
        )

    def take(self, rows: Int[np.ndarray, " M"]) -> Rewards:
        """The rewards of some of the completions."""
        return Rewards(
            total=self.total[rows],
            components={name: values[rows] for name, values in self.components.items()},
            steps={name: tuple(steps[row] for row in rows) for name, steps in self.steps.items()},
            weights=self.weights,
        )

    def metrics(self) -> dict[str, float]:
        """Mean and standard deviation (over N) of the sum and of each reward over the completions that it
        applies to, and their share; a reward that applies to none has no mean."""
        found = {"reward/mean": float(self.total.mean()), "reward/std": float(self.total.std())}
        for name, values in self.components.items():
            there = values[~np.isnan(values)]
            found[f"reward/{name}/applies"] = len(there) / len(values)
            found[f"reward/{name}/weight"] = self.weights[name]
            if len(there):
                found[f"reward/{name}/mean"] = float(there.mean())
                found[f"reward/{name}/std"] = float(there.std())
        return found | self._agreements()

    def _agreements(self) -> dict[str, float]:
        """For each two rewards with steps: of the steps that both value above or below 0, the share that both
        place on the same side."""
        found = {}
        stepwise = [name for name, steps in self.steps.items() if any(steps)]
        for one, two in itertools.combinations(stepwise, 2):
            same = [
                (a.value > 0) == (b.value > 0)
                for ours, theirs in zip(self.steps[one], self.steps[two], strict=True)
                if ours and theirs
                for a, b in zip(ours, theirs, strict=True)
                if a.value and b.value
            ]
            if same:
                found[f"reward/agreement/{one}_{two}"] = sum(same) / len(same)
        return found


@dataclass(frozen=True)
class RewardMixture:
    """The rewards of a run. Call it with the training step, texts and columns."""

    components: tuple[Component, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Mapping[str, Any]]) -> RewardMixture:
        """From name -> settings, a mapping or a ConfigDict:

            process=dict(function="process", weight=1.0, clip=(0.0, 1.0), schedule=((0, 0.0), (100, 1.0)))

        `function` is a built-in reward or a dotted path (`lookup.reward`); the others as in `Component`.
        Rewards of weight 0 are computed and logged all the same.

        Raises:
          RewardError: no reward at all, or a setting that is missing, unknown or makes no sense.
        """
        if not config:
            raise RewardError("rewards: there is none")
        return cls(tuple(_component(name, dict(settings)) for name, settings in config.items()))

    def __call__(
        self,
        step: int,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        columns: Mapping[str, Sequence[Any]],
    ) -> Rewards:
        """Rewards N completions; `columns` hold N values each (`columns_of`).

        Raises:
          RewardError: a function returns something else than N finite numbers or None.
        """
        total = np.zeros(len(completions))
        components, steps, weights = {}, {}, {}
        for one in self.components:
            asked = len(completions) or isinstance(one.function, Together)
            given = one.function(prompts=prompts, completions=completions, **columns) if asked else []
            values = _checked(one.name, given, len(completions))
            components[one.name] = np.clip(values, *one.clip)
            steps[one.name] = tuple(value.steps if isinstance(value, Stepwise) else None for value in given)
            weights[one.name] = one.weight_at(step)
            total += weights[one.name] * np.nan_to_num(components[one.name])
        return Rewards(total, components, steps, weights)


def columns_of(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """The fields of the samples as columns, and of their unknown fields those that all of them have."""
    columns = {name: [vars(sample)[name] for sample in samples] for name in (*FIELDS, "root")}
    shared = set.intersection(*(set(sample.extra) for sample in samples)) if samples else set()
    return columns | {name: [sample.extra[name] for sample in samples] for name in sorted(shared)}


def _component(name: str, settings: dict[str, Any]) -> Component:
    if odd := sorted(set(settings) ^ set(SETTINGS)):
        raise RewardError(f"reward {name!r}: needs just {', '.join(SETTINGS)}; differs in {', '.join(odd)}")
    low, high = settings["clip"]
    if not low < high:
        raise RewardError(f"reward {name!r}: field 'clip': {low} is not below {high}")
    schedule = tuple((int(step), float(factor)) for step, factor in settings["schedule"])
    if any(one >= two for (one, _), (two, _) in itertools.pairwise(schedule)):
        raise RewardError(f"reward {name!r}: field 'schedule': steps do not rise: {schedule}")
    return Component(name, reward(settings["function"]), settings["weight"], (low, high), schedule)


def _checked(name: str, given: Any, count: int) -> Float[np.ndarray, " N"]:
    if not isinstance(given, Sequence) or len(given) != count:
        size = f"{len(given)} values" if isinstance(given, Sequence) else f"a {type(given).__name__}"
        raise RewardError(
            f"reward {name!r} returned {size} for {count} completions; a list of as many is due"
        )
    for i, value in enumerate(given):
        if value is not None and not (isinstance(value, int | float | np.number) and np.isfinite(value)):
            raise RewardError(f"reward {name!r}: completion {i}: {value!r} is no finite number and not None")
    return np.array([np.nan if value is None else float(value) for value in given], np.float64)
