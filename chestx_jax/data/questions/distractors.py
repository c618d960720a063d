"""Wrong options, drawn at random as the paper does."""

import math
import random

from chestx_jax.data.questions.question import ordered, with_value
from chestx_jax.data.schema import NO_FINDING, Study


def other_labels(study: Study, truth: str, count: int, rng: random.Random) -> list[str] | None:
    """`count` labels whose value is 0, "no finding" among them when something was found; None: too few."""
    pool = with_value(study, 0)
    if truth != NO_FINDING:
        pool.append(NO_FINDING)
    return rng.sample(pool, count) if len(pool) >= count else None


def other_sets(study: Study, truth: list[str], count: int, rng: random.Random) -> list[list[str]] | None:
    """`count` sets of as many labels as `truth`, different from it and from each other; None: too few exist.

    A set may share labels with the truth (it "only has to differ"), but holds none that is uncertain.
    """
    pool = [label for label in ordered(study.labels) if study.labels[label] in (0, 1)]
    if math.comb(len(pool), len(truth)) <= count:
        return None
    sets: list[list[str]] = []
    while len(sets) < count:
        chosen = set(rng.sample(pool, len(truth)))
        candidate = [label for label in pool if label in chosen]
        if candidate != truth and candidate not in sets:
            sets.append(candidate)
    return sets
