"""What sampling has to know of a question: a few words of it, so that a whole collection fits in memory."""

import hashlib
from dataclasses import dataclass

from chestx_jax.data.schema import NO_FINDING, Sample, Study


@dataclass(frozen=True)
class Ballot:
    """One question that stands for election.

    Attributes:
      id, task, split: of the question.
      label: what it asks for by name; "" where it asks for findings at large.
      truth: the right answer in words.
      known: labels that the study is known to have or not to have; "no finding" among them where it is false.
        Empty for a task whose options are fixed.
    """

    id: str
    task: str
    split: str
    label: str
    truth: str
    known: frozenset[str]

    def allows(self, option: str) -> bool:
        """Whether `option`, a comma-joined set of labels, is certainly not this question's answer."""
        return option != self.truth and self.known.issuperset(option.split(", "))


def ballot_of(sample: Sample, study: Study, split: str) -> Ballot:
    """The ballot of a question that `study` gave."""
    known: set[str] = set()
    if sample.task in ("single", "multiple"):
        known = {label for label, value in study.labels.items() if value in (0, 1) and label != NO_FINDING}
        if sample.answer_text != NO_FINDING:
            known.add(NO_FINDING)
    label = sample.extra.get("label", "")
    return Ballot(sample.id, sample.task, split, label, sample.answer_text, frozenset(known))


def rank(seed: int, name: str) -> bytes:
    """A place in a draw by lot that depends on nothing but seed and name."""
    return hashlib.sha256(f"{seed}|{name}".encode()).digest()
