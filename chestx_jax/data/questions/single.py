"""Which finding is in this chest X-ray? Four options of which one is true."""

import random

from chestx_jax.data.questions.distractors import other_labels
from chestx_jax.data.questions.question import Question, choice, is_normal, with_value
from chestx_jax.data.schema import NO_FINDING, Study

STEM = "Which finding is in this chest X-ray?"
OPTIONS = 4


def single(study: Study, rng: random.Random) -> list[Question]:
    """For a study with exactly one finding, or none ("no finding"), and three labels known to be absent."""
    present = with_value(study, 1)
    if is_normal(study):
        truth = NO_FINDING
    elif len(present) == 1:
        truth = present[0]
    else:
        return []
    wrong = other_labels(study, truth, OPTIONS - 1, rng)
    if wrong is None:
        return []
    options = [truth, *wrong]
    rng.shuffle(options)
    return [choice(STEM, tuple(options), options.index(truth))]
