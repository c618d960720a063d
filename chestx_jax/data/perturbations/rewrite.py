"""One true step to one false step, of a named kind, checked by what the findings room reads in it.

A rewriting is only good if its truth is known: what it claims must contradict what the study's gold reasoning and
report claim, and nothing there may bear it out.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from chestx_jax.data.perturbations import wording
from chestx_jax.data.perturbations.wording import Statement
from chestx_jax.radiology import Finding, extract_findings, relation

NOUNS = (
    "pleural effusion",
    "pneumothorax",
    "consolidation",
    "atelectasis",
    "pulmonary edema",
    "lung lesion",
    "lung opacity",
    "cardiomegaly",
    "rib fracture",
)
"""What a finding is swapped for."""
_TRIES = 12  # donors looked at before a step is left as it is
_CLAIMS = 2  # of a free sentence: of longer ones nobody knows which claim a changed word makes false


@dataclass(frozen=True)
class Donors:
    """What the studies of a collection say, to be put into the mouth of another.

    Attributes:
      details: subject of a statement -> the details it is affirmed with, as often as it is.
      steps: concept -> (study, step) of the steps that claim it and nothing else.
    """

    details: Mapping[str, Sequence[str]]
    steps: Mapping[str, Sequence[tuple[str, str]]]

    @classmethod
    def of(cls, steps: Iterable[tuple[str, str]]) -> Donors:
        """From (study, step) pairs."""
        details: dict[str, list[str]] = defaultdict(list)
        claims: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for study, step in steps:
            statement = Statement.read(step)
            if statement and statement.details is not None:
                details[statement.subject].append(statement.details)
            found = {finding.concept for finding in extract_findings(step) if finding.asserted}
            if len(found) == 1 and not compares(step):
                claims[found.pop()].append((study, step))
        return cls(dict(details), dict(claims))


@dataclass(frozen=True)
class Gold:
    """What is true of a study: the asserted findings of its gold reasoning and report."""

    study: str
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, study: str, steps: Sequence[str], report: str) -> Gold:
        found = [f for text in (*steps, report) for f in extract_findings(text) if f.asserted]
        return cls(study, tuple(found))

    def denies(self, step: str) -> bool:
        """Whether a claim of `step` conflicts with a gold one, and no gold one bears that claim out."""
        return any(self._denies(finding) for finding in asserted(step))

    def _denies(self, claim: Finding) -> bool:
        relations = {
            found
            for gold in self.findings
            if (found := relation(claim, gold)) != "side" or gold.laterality is not None
        }  # who names no side bears out none
        return "conflict" in relations and not relations & {"same", "side", "entailed"}

    def denies_degree(self, step: str) -> bool:
        """Whether `step` affirms the opposite degree of a gold finding, and no gold finding has that degree."""
        for claim in asserted(step):
            degrees = {
                gold.severity
                for gold in self.findings
                if gold.concept == claim.concept and gold.polarity == claim.polarity == "present"
            }
            if claim.severity not in degrees and {claim.severity, *degrees} >= {"mild", "severe"}:
                return True
        return False


def asserted(step: str) -> list[Finding]:
    """What a step claims."""
    return [finding for finding in extract_findings(step) if finding.asserted]


def compares(step: str) -> bool:
    """Whether a step says how something changed from one image to the next."""
    changed = any(finding.change in ("better", "worse") for finding in asserted(step))
    return changed or wording.from_to(step)


Rewriting = Callable[[str, Gold, Donors, random.Random], str | None]


def _negate(step: str, gold: Gold, donors: Donors, rng: random.Random) -> str | None:
    """Affirmed for denied, with details that this finding has in some study; denied for affirmed."""
    statement = Statement.read(step)
    if statement is None:
        text = wording.negated(step)
    elif statement.details is not None:
        text = statement.but(None)
    else:
        known = donors.details.get(statement.subject, ())
        text = statement.but(rng.choice(known)) if known else None
    return text if text and gold.denies(text) else None


def _side(step: str, gold: Gold, donors: Donors, rng: random.Random) -> str | None:
    text = wording.other_side(step)
    return text if text and gold.denies(text) else None


def _severity(step: str, gold: Gold, donors: Donors, rng: random.Random) -> str | None:
    text = wording.other_degree(step)
    return text if text and gold.denies_degree(text) else None


def _finding(step: str, gold: Gold, donors: Donors, rng: random.Random) -> str | None:
    """Another finding, which the study does not have, described in the words of the true one."""
    claims = asserted(step)
    if len(claims) != 1 or claims[0].polarity != "present":
        return None
    start, end = claims[0].start, claims[0].end
    for noun in rng.sample(NOUNS, len(NOUNS)):
        said = noun[0].upper() + noun[1:] if start == 0 else noun
        text = step[:start] + said + step[end:]
        if text != step and gold.denies(text):
            return text
    return None


def _foreign(step: str, gold: Gold, donors: Donors, rng: random.Random) -> str | None:
    """What another study says of the same finding; statements in the wording of this reading."""
    claims = asserted(step)
    known = donors.steps.get(claims[0].concept, ()) if claims else ()
    ours = Statement.read(step)
    for study, text in rng.choices(known, k=_TRIES) if known else ():
        theirs = Statement.read(text)
        if study == gold.study or (ours is None) != (theirs is None):
            continue
        if ours and theirs:
            text = ours.but(theirs.details)
        if gold.denies(text):
            return text
    return None


def _temporal(step: str, gold: Gold, donors: Donors, rng: random.Random) -> str | None:
    """A change has one direction: the states told in the other order, or what got better now worse."""
    text = wording.other_direction(step)
    if text is None or wording.from_to(step):
        return text
    turned = {"better": "worse", "worse": "better"}
    changes = [turned.get(finding.change or "") for finding in asserted(step)]
    return text if [finding.change for finding in asserted(text)] == changes and any(changes) else None


REWRITINGS: Mapping[str, Rewriting] = {
    "negate": _negate,
    "side": _side,
    "severity": _severity,
    "finding": _finding,
    "foreign": _foreign,
    "temporal": _temporal,
}
KINDS = tuple(REWRITINGS)
"""negate: affirmed <-> denied. side: left <-> right. severity: one end of the scale for the other. finding: another
finding at its place. foreign: what another study says of the same finding. temporal: a change the other way round."""


def rewrite(step: str, kind: str, gold: Gold, donors: Donors, rng: random.Random) -> str | None:
    """`step` made false in the way of `kind`; None where it cannot be, or the result is not known to be false."""
    if (kind == "temporal") != compares(step):
        return None
    if Statement.read(step) is None and len(asserted(step)) > _CLAIMS:
        return None
    return REWRITINGS[kind](step, gold, donors, rng)
