"""The five question builders: a Study -> the questions that its labels answer.

The wording follows the paper (ChestX-Reasoner, arXiv 2504.20930, RadRBench-CXR) to the letter. Every choice is
drawn from a generator seeded by (seed, source, study id, task), so a study's questions never depend on the
other studies. Which of them become a benchmark, and with which options: `sampling`.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from chestx_jax.data.questions.anomaly import anomaly
from chestx_jax.data.questions.ballot import Ballot, ballot_of
from chestx_jax.data.questions.binary import binary
from chestx_jax.data.questions.multiple import multiple
from chestx_jax.data.questions.question import Question, QuestionError, check_labels
from chestx_jax.data.questions.sampling import SAMPLINGS, Elected
from chestx_jax.data.questions.single import single
from chestx_jax.data.questions.temporal import temporal
from chestx_jax.data.schema import LETTERS, TASKS, Sample, Study, question_text

__all__ = [
    "BUILDERS",
    "SAMPLINGS",
    "Ballot",
    "Elected",
    "Question",
    "QuestionError",
    "ballot_of",
    "build_questions",
]

BUILDERS: Mapping[str, Callable[[Study, random.Random], list[Question]]] = {
    "binary": binary,
    "single": single,
    "multiple": multiple,
    "anomaly": anomaly,
    "temporal": temporal,
}


def build_questions(
    study: Study, tasks: Sequence[str] = TASKS, seed: int = 0, elected: Elected | None = None
) -> list[Sample]:
    """All questions of `tasks` that the study's labels answer; none for a task that they do not answer. With
    `elected` only those, with the options given there.

    The images are the study's own paths; `Sample.root` is left open until the samples are written. A study
    with `reason_steps` gives reasoning samples, closed by a sentence that names the answer; others are
    answer-only.

    Raises:
      QuestionError: an unknown task, or labels and progressions with values outside the schema.
    """
    check_labels(study)
    samples: list[Sample] = []
    for task in tasks:
        if task not in BUILDERS:
            raise QuestionError(f"task {task!r} is none of {', '.join(BUILDERS)}")
        rng = random.Random(f"{seed}|{study.source}|{study.id}|{task}")
        for question in BUILDERS[task](study, rng):
            name = _name(study, task, question)
            if elected is None or name in elected:
                offered = _offering(question, elected[name] if elected else None)
                samples.append(_sample(study, task, name, offered, random.Random(f"{seed}|{name}")))
    return samples


def _name(study: Study, task: str, question: Question) -> str:
    suffix = f"-{question.label.replace(' ', '_')}" if question.label else ""
    return f"{study.source}-{task}-{study.id}{suffix}"


def _offering(question: Question, options: tuple[str, ...] | None) -> Question:
    if options is None:
        return question
    return replace(question, options=options, answer=LETTERS[options.index(question.answer_text)])


def _sample(study: Study, task: str, name: str, question: Question, rng: random.Random) -> Sample:
    return Sample(
        id=name,
        study=study.id,
        patient=study.patient,
        source=study.source,
        task=task,
        images=tuple(str(image) for image in question.images or study.images),
        question=question_text(question.stem, question.options),
        options=question.options,
        answer=question.answer,
        answer_text=question.answer_text,
        reason_steps=_reason_steps(study.reason_steps, question, rng),
        report=study.report,
        extra={**({"label": question.label} if question.label else {}), **question.extra},
    )


_CONCLUSIONS = (
    "Therefore the answer is {}.",
    "So the answer is {}.",
    "Based on these observations, the answer is {}.",
    "In conclusion, the answer is {}.",
)


def _reason_steps(steps: Iterable[str], question: Question, rng: random.Random) -> tuple[str, ...]:
    known = tuple(steps)
    if not known:
        return ()
    named = question.meaning if question.options is None else f"{question.answer}, {question.meaning}"
    return (*known, *question.steps, rng.choice(_CONCLUSIONS).format(named))
