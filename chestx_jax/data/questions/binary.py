"""Does this chest X-ray show {label}? One question for every label that is known to be present or absent."""

import random

from chestx_jax.data.questions.question import Question, choice, ordered
from chestx_jax.data.schema import Study


def binary(study: Study, rng: random.Random) -> list[Question]:
    """Labels that are uncertain or not mentioned are not asked for. Balance over a collection: `balance`."""
    del rng  # the options' order is fixed
    questions = []
    for label in ordered(study.labels):
        if study.labels[label] not in (0, 1):
            continue
        present = study.labels[label] == 1
        meaning = f"{label} is {'present' if present else 'not present'}"
        stem = f"Does this chest X-ray show {label}?"
        questions.append(choice(stem, ("Yes", "No"), 0 if present else 1, meaning, label=label))
    return questions
