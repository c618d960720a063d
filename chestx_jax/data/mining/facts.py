"""What a report says that can be told as an observation: its findings, each once, the more exact one kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from chestx_jax.data.mining.sources import (
    ALIKE,
    Book,
    answer_findings,
    check_claim,
    follows,
    report_findings,
)
from chestx_jax.data.mining.wording import placed
from chestx_jax.data.schema import Sample
from chestx_jax.radiology import Finding, load, relation

WHOLE_FILM = ("abnormality", "acute cardiopulmonary process")
"""Concepts that are only denied: that "an abnormality" is there tells nothing."""


_KIN = 2
_NEAR = ({"base", "lower lobe"}, {"apex", "upper lobe"})
"""Places that a report uses for one another."""


@dataclass(frozen=True)
class Fact:
    """A finding that can be told. `many`: the text names it in the plural."""

    finding: Finding
    many: bool = False


@dataclass(frozen=True)
class Facts:
    """What is known of one image: affirmed and denied findings that do not contradict each other.

    Attributes:
      affirmed: what is certain, and what the answer makes so.
      denied: without those that an affirmed finding or the answer contradicts.
      otherwise_clear: the lungs are said to be clear but for what is affirmed.
      books: the report and the answer, to hold further claims against.
    """

    affirmed: tuple[Fact, ...]
    denied: tuple[Finding, ...]
    books: tuple[Book, ...]
    otherwise_clear: bool = False

    @classmethod
    def of(cls, sample: Sample) -> Facts:
        """The facts of a sample: of its report, held against its answer."""
        affirmed, denied = told(sample.report)
        answer = answer_findings(sample)
        books = (("report", report_findings(sample.report)), ("answer", answer))
        sure = [(name, [one for one in found if one.certainty == "definite"]) for name, found in books]
        return cls(
            tuple(_sided(kept, answer) for fact in affirmed if (kept := _settled(fact, answer)) is not None),
            tuple(one for one in denied if deniable(one, sure)),
            books,
            any(one.concept == "lung opacity" and not deniable(one, sure) for one in denied),
        )

    def bearing_out(self, wanted: Finding) -> list[Fact]:
        """The affirmed facts that say what `wanted` says, the closest first; kin only where there are no
        others."""
        ranked = [
            (rank, fact) for fact in self.affirmed if (rank := _closeness(fact.finding, wanted)) is not None
        ]
        exact = [pair for pair in ranked if pair[0] < _KIN]
        return [fact for _, fact in sorted(exact or ranked, key=lambda pair: pair[0])]

    def can_deny(self, finding: Finding) -> bool:
        """Whether nothing known speaks against denying a finding."""
        return deniable(finding, self.books)


def _settled(fact: Fact, answer: Sequence[Finding]) -> Fact | None:
    """A doubted finding is an inference, not an observation: told only where the answer bears it out."""
    if fact.finding.certainty == "definite":
        return fact
    close = [_closeness(fact.finding, one) for one in answer]
    return Fact(replace(fact.finding, certainty="definite"), fact.many) if 0 in close or 1 in close else None


def _sided(fact: Fact, answer: Sequence[Finding]) -> Fact:
    """With the side and place of the answer's one finding of its kind, where the report leaves the side open."""
    same = [one for one in answer if (one.concept, one.polarity) == (fact.finding.concept, "present")]
    if fact.finding.laterality or len(same) != 1 or not same[0].laterality:
        return fact
    exact = replace(fact.finding, laterality=same[0].laterality, anatomy=same[0].anatomy)
    return Fact(placed(exact), fact.many)


def deniable(finding: Finding, books: Iterable[Book]) -> bool:
    """Whether no source affirms the finding, what it implies on its side, or what implies it."""
    denial = replace(finding, polarity="absent", certainty="definite", severity=None, change=None)
    affirmed = [one for _, findings in books for one in findings if one.polarity == "present"]
    if any(denial.concept in load().ancestors[one.concept] and _meets(denial, one) for one in affirmed):
        return False
    alike = [group for group in ALIKE if denial.concept in group]
    if denial.laterality is None and any(one.concept in group for one in affirmed for group in alike):
        return False
    return check_claim(denial, [("affirmed", affirmed)]).verdict != "contradicted"


def _meets(denial: Finding, one: Finding) -> bool:
    return {denial.laterality, one.laterality} != {"left", "right"}


@lru_cache(maxsize=4096)
def told(report: str) -> tuple[tuple[Fact, ...], tuple[Finding, ...]]:
    """The affirmed facts and the denied findings of a report, each once. A finding without side or place is
    left out where the same concept is told with one, an uncertain one where it is told for certain, and a
    denial where something wider is denied as well."""
    found = report_findings(report)
    affirmed = [
        placed(_graded(one)) for one in found if one.polarity == "present" and one.concept not in WHOLE_FILM
    ]
    facts = [Fact(one, report[one.start : one.end].endswith("s")) for one in _exact(affirmed)]
    denied = [
        replace(one, severity=None, anatomy=load().concepts[one.concept].place, certainty="definite")
        for one in _exact([one for one in found if one.polarity == "absent" and one.severity is None])
    ]
    once = {(one.concept, one.laterality): one for one in denied}
    return tuple(facts), tuple(once.values())


def _graded(finding: Finding) -> Finding:
    """Without a degree that may be one of change ("slightly improved opacities")."""
    return replace(finding, severity=None) if finding.change in ("better", "worse") else finding


def _exact(findings: Sequence[Finding]) -> list[Finding]:
    kept: list[Finding] = []
    for one in findings:
        if any(_covers(other, one) for other in kept):
            continue
        kept = [other for other in kept if not _covers(one, other)]
        kept.append(one)
    return kept


def _covers(exact: Finding, other: Finding) -> bool:
    """Whether `exact` tells all that `other` does."""
    if exact.concept != other.concept:
        return False
    usual = load().concepts[other.concept].place
    if exact.certainty != other.certainty and exact.certainty == "uncertain":
        return False
    return (
        (other.laterality in (None, exact.laterality) or exact.laterality == "bilateral")
        and (other.anatomy in (None, usual, exact.anatomy) or {other.anatomy, exact.anatomy} in _NEAR)
        and (other.severity is None or exact.severity is not None)
    )


def _closeness(fact: Finding, wanted: Finding) -> int | None:
    """0: the same; 1: it follows from the fact, or the side is left open; 2: kin; None: something else."""
    if wanted.polarity != fact.polarity:
        return None
    rule = relation(wanted, fact)
    if rule == "same":
        return 0
    if follows(wanted, fact):
        return 1
    alike = any({fact.concept, wanted.concept} <= group for group in ALIKE)
    near = alike and {fact.laterality, wanted.laterality} != {"left", "right"}
    return _KIN if rule == "kin" or near else None
