"""Ways to fool a judge of reasoning, made from real records: a score that rewards one of them is no good.

Every probe replaces or stretches the reasoning of a real output and keeps its answer, so that only the
reasoning decides. `python -m benchmarks.radrscore` prints what the offline RadRScore makes of them,
`python -m benchmarks.rewards` what the rewards do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chestx_jax.data.schema import OPTIONS_MARK
from chestx_jax.evaluation.accuracy import bootstrap_interval
from chestx_jax.radiology import LABELS
from chestx_jax.rewards.offline import offline_radrscore
from chestx_jax.rewards.reference import Reference

Steps = tuple[str, ...]

NORMALS: Steps = (
    "The lungs are clear.",
    "There is no pleural effusion.",
    "There is no pneumothorax.",
    "The heart size is normal.",
    "The mediastinal contours are normal.",
    "There is no focal consolidation.",
    "There is no pulmonary edema.",
    "There is no acute bony abnormality.",
    "The hilar contours are normal.",
    "There are no pulmonary nodules or masses.",
)
FILLER: Steps = (
    "Let us analyze the image systematically and carefully.",
    "First, I will review the overall quality of the study.",
    "Each option must be weighed against what the image shows.",
    "I will consider every region in turn, comparing both sides.",
    "Careful attention to detail is needed for a reliable reading.",
    "The observations are then combined into an overall impression.",
    "Taking all of this into account, one option stands out.",
    "Therefore, the answer follows from the analysis above.",
)


@dataclass(frozen=True)
class Subject:
    """A real output to make probes of.

    Attributes:
      steps, answer: what the model wrote; `answer` is None where none was read.
      other: the steps of the same model for another study.
    """

    question: str
    steps: Steps
    answer: str | None
    other: Steps
    reference: Reference


def _offered(subject: Subject) -> list[str]:
    """The options, one part each; for an open question every label there is."""
    options = subject.reference.options
    if options is None:
        return [label for label in LABELS if label != "no finding"]
    return [part.strip() for option in options for part in option.split(",") if part.strip()]


def _every_option(subject: Subject) -> Steps:
    return tuple(f"There is {name}." for name in _offered(subject))


def _no_option(subject: Subject) -> Steps:
    return tuple(f"There is no {name}." for name in _offered(subject))


def _hedged(subject: Subject) -> Steps:
    """Right whatever is true, to a reader who takes each sentence alone."""
    return tuple(text for name in _offered(subject) for text in (f"There is {name}.", f"{name} is unlikely."))


def _degrees(subject: Subject) -> Steps:
    """The same, by degree."""
    pairs = ((f"There is {name}.", f"There is no large {name}.") for name in _offered(subject))
    return tuple(text for pair in pairs for text in pair)


def _true_sentence(subject: Subject) -> Steps:
    """The gold sentence with the fewest claims, one if possible."""
    counts = Counter(mention.sentence for mention in subject.reference.gold.mentions)
    first = min(counts, key=lambda i: (counts[i], i), default=0)
    return (subject.reference.gold.sentences[first].text,)


def _contradictions(subject: Subject) -> Steps:
    """Every gold claim's concept, affirmed and denied."""
    concepts = dict.fromkeys(claim.concept for claim in subject.reference.gold_claims)
    return tuple(text for name in concepts for text in (f"There is {name}.", f"There is no {name}."))


def _contradicted(subject: Subject) -> Steps:
    """The real output, then the denial of all that it affirms and the other way round."""
    mirrored = _contradictions(subject)
    return (*subject.steps, *mirrored)


def _question(subject: Subject) -> Steps:
    """The question, and each of its lines, twice."""
    return (*subject.question.replace(OPTIONS_MARK, "\n").split("\n"),) * 2


PROBES: Mapping[str, Callable[[Subject], Steps]] = {
    "ten normal statements": lambda subject: NORMALS,
    "real output + ten normals": lambda subject: subject.steps + NORMALS,
    "every option present": _every_option,
    "every option absent": _no_option,
    "every option hedged": _hedged,
    "every option, none large": _degrees,
    "generic filler": lambda subject: FILLER,
    "real output + filler": lambda subject: subject.steps + FILLER,
    "another sample's output": lambda subject: subject.other,
    "question repeated": _question,
    "one true finding": _true_sentence,
    "one true finding five times": lambda subject: _true_sentence(subject) * 5,
    "contradiction pairs": _contradictions,
    "real output + contradiction pairs": _contradicted,
    "real output twice": lambda subject: subject.steps * 2,
    "no reasoning": lambda subject: (),
}
"""Name -> the steps to try in place of the real ones."""


@dataclass(frozen=True)
class ProbeRow:
    """The means of one probe over all subjects; `margin` is the real outputs' mean score minus its own,
    `lower` the share of subjects where it scores below the real output, `not_higher` at most as high."""

    name: str
    count: int
    factuality: float
    completeness: float
    effectiveness: float
    score: float
    margin: float
    margin_interval: tuple[float, float]
    lower: float
    not_higher: float


Attempt = tuple[Steps, str | None, Reference]


def attempts(subjects: Sequence[Subject]) -> dict[str, list[Attempt]]:
    """Steps, answer and reference of each subject, under the name of what was done to it: the gold reasoning
    (with the right answer), the real output, and each of `PROBES`."""
    tried = {
        "gold reasoning": [(_gold(s), s.reference.answer, s.reference) for s in subjects],
        "real output": [(s.steps, s.answer, s.reference) for s in subjects],
    }
    for name, make in PROBES.items():
        tried[name] = [(make(s), s.answer, s.reference) for s in subjects]
    return tried


def probe_table(subjects: Sequence[Subject], seed: int = 0) -> list[ProbeRow]:
    """The offline RadRScore of `attempts`, one row each."""
    scores = {name: _scores(tried) for name, tried in attempts(subjects).items()}
    return [_row(name, tried, scores["real output"], seed) for name, tried in scores.items()]


def _gold(subject: Subject) -> Steps:
    return tuple(sentence.text for sentence in subject.reference.gold.sentences)


def _scores(tried: Sequence[Attempt]) -> np.ndarray:
    scored = [offline_radrscore(steps, reference, answer) for steps, answer, reference in tried]
    return np.array([(s.factuality, s.completeness, s.effectiveness, s.score) for s in scored])


def _row(name: str, tried: np.ndarray, real: np.ndarray, seed: int) -> ProbeRow:
    gap = real[:, 3] - tried[:, 3]
    factuality, completeness, effectiveness, score = (float(value) for value in tried.mean(axis=0))
    return ProbeRow(
        name,
        len(tried),
        factuality,
        completeness,
        effectiveness,
        score,
        margin=float(gap.mean()),
        margin_interval=bootstrap_interval(gap, seed),
        lower=float((gap > 1e-9).mean()),
        not_higher=float((gap > -1e-9).mean()),
    )
