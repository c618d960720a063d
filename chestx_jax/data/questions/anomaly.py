"""Which findings are in this chest X-ray? The open question; the answer is the comma-joined labels."""

import random

from chestx_jax.data.questions.question import Question, is_normal, with_value
from chestx_jax.data.schema import NO_FINDING, Study

STEM = "Which findings are in this chest X-ray?"


def anomaly(study: Study, rng: random.Random) -> list[Question]:
    """For a study with one finding or more, or with none ("no finding").

    The published test sets ask it of studies with two to five findings only; the others are asked here as
    well, so that a model does not learn that there is always something to find.
    """
    del rng  # nothing is drawn
    present = with_value(study, 1)
    if not present and not is_normal(study):
        return []
    answer = ", ".join(present) or NO_FINDING
    return [Question(STEM, None, answer, answer, answer)]
