"""Which findings are in this chest X-ray? Four label sets of the same size of which one is true."""

import random

from chestx_jax.data.questions.distractors import other_sets
from chestx_jax.data.questions.question import Question, choice, with_value
from chestx_jax.data.schema import Study

STEM = "Which findings are in this chest X-ray?"
OPTIONS = 4


def multiple(study: Study, rng: random.Random) -> list[Question]:
    """For a study with two findings or more. All sets list their labels in one order: it tells nothing."""
    truth = with_value(study, 1)
    if len(truth) < 2:
        return []
    wrong = other_sets(study, truth, OPTIONS - 1, rng)
    if wrong is None:
        return []
    options = [", ".join(labels) for labels in (truth, *wrong)]
    right = options[0]
    rng.shuffle(options)
    return [choice(STEM, tuple(options), options.index(right))]
