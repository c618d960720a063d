"""How has {label} changed between a reference image and a new one?"""

import random

from chestx_jax.data.questions.question import Question, QuestionError, choice, ordered
from chestx_jax.data.schema import PROGRESSIONS, Study


def temporal(study: Study, rng: random.Random) -> list[Question]:
    """One question for every label with a known progression; the prior's first image, then the study's first.

    The wording speaks of two images, so further views of either study are left out. Where the reasoning is
    known, `extra["comparison_steps"]` of the study (label -> sentence) adds the change to what the new image
    shows.
    """
    del rng  # the options' order is fixed
    if study.prior is None:
        return []
    if not study.prior.images or not study.images:
        raise QuestionError(f"study {study.source}/{study.id}: field 'images': empty here or in its prior")
    comparisons = study.extra.get("comparison_steps", {})
    questions = []
    for label in ordered(dict.fromkeys(study.progression)):
        state = study.progression[label]
        stem = (
            "You are given two images: one reference image and one new image. "
            f"Please identify the progression of {label}."
        )
        questions.append(
            choice(
                stem,
                PROGRESSIONS,
                PROGRESSIONS.index(state),
                f"{label} is {state}",
                label=label,
                steps=(comparisons[label],) if label in comparisons else (),
                images=(study.prior.images[0], study.images[0]),
                extra={"prior_study": study.prior.id, "prior_report": study.prior.report},
            )
        )
    return questions
