"""Step-by-step verification of mined reasoning, by rules.

Every step is held against the report (and, of a temporal question, the earlier report), the last one against
the answer, all of them against phrases that leak where the reasoning came from. Rests on `radiology` alone:
what its extractor does not read is not checked, which a step's verdict "empty" says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chestx_jax.data.mining.claims import step_claims
from chestx_jax.data.mining.conclusion import names_answer
from chestx_jax.data.mining.leaks import find_leaks
from chestx_jax.data.mining.sources import (
    Book,
    ClaimCheck,
    answer_findings,
    asked_label,
    check_claim,
    label_findings,
    report_findings,
)
from chestx_jax.data.schema import Sample
from chestx_jax.radiology import Finding, contradictions

STEP_VERDICTS = ("supported", "contradicted", "unmentioned", "empty")
_CHANGE = {"new": "worsening", "worse": "worsening", "better": "improving", "stable": "stable"}
_EARLIER = re.compile(
    r"\b(?:reference|earlier|prior|previous|first|baseline|initial) (?:image|film|radiograph|chest x-ray)",
    re.I,
)
_KIND = re.compile(
    r"\b(?:round(?:ed)?|linear|band-?like|streaky|nodular|irregular|metal\w*|reticular|discrete|separate|tension|active"
    r"|well-defined|such|similar|bilateral symmetrical|implanted|structured)\b[\w\s,-]{0,25}$"
)
_NEW_IMAGE = re.compile(r"\bnew(?= (?:image|one|film|radiograph))", re.IGNORECASE)
"""Says which image is meant, not that a finding is new; read as "2nd", which has as many letters."""
_LATER = re.compile(
    r"\b(?:new|2nd|later|current|second|follow-up|recent) (?:image|one|film|radiograph|chest x-ray)", re.I
)


@dataclass(frozen=True)
class StepCheck:
    """One step.

    Attributes:
      verdict: contradicted if one of its claims is; else unmentioned if it affirms what no source says, or if
        no source speaks of any of its claims; else supported. Empty: it claims nothing that can be checked.
      claims: its asserted findings with their verdicts.
    """

    verdict: str
    claims: tuple[ClaimCheck, ...]

    @property
    def unfounded(self) -> bool:
        """Whether it affirms what no source says."""
        return any(claim.unfounded for claim in self.claims)


@dataclass(frozen=True)
class Verification:
    """What was found of one sample.

    Attributes:
      steps: one check a step, in their order.
      conclusion: whether the last step names the right answer and no other.
      leaks: phrases that give the source away, in lower case.
      reasons: why it is not ok, for the quarantine; they quote single words of the steps, no report.
    """

    steps: tuple[StepCheck, ...]
    conclusion: bool
    leaks: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.reasons

    @property
    def verdicts(self) -> tuple[str, ...]:
        return tuple(step.verdict for step in self.steps)


def verify(sample: Sample) -> Verification:
    """Checks `sample.reason_steps` against `sample.report` and its answer. Never changes the sample.

    Not ok are: no steps, no report, a contradicted step, an affirmation that no source bears out, steps that
    contradict each other, a conclusion that does not name the answer, a leak. Denials of what the report does
    not mention are fine.

    Raises:
      MiningError: a binary or temporal sample without `extra["label"]`.
    """
    steps = tuple(_check_step(step, sample) for step in sample.reason_steps)
    leaks = tuple(
        leak for step in sample.reason_steps for leak in find_leaks(step, sample.task != "temporal")
    )
    conclusion = bool(steps) and names_answer(sample.reason_steps[-1], sample)
    return Verification(steps, conclusion, leaks, tuple(_reasons(sample, steps, conclusion, leaks)))


def _reasons(
    sample: Sample, steps: Sequence[StepCheck], conclusion: bool, leaks: Sequence[str]
) -> Iterator[str]:
    if not steps:
        yield "no reasoning steps"
        return
    if not sample.report.strip():
        yield "no report to check against"
    for number, step in enumerate(steps, start=1):
        for claim in step.claims:
            said = f"{claim.finding.polarity} {claim.finding.concept}"
            if claim.verdict == "contradicted":
                yield f"step {number}: contradicted by the {claim.source}: {said}"
            elif claim.unfounded:
                yield f"step {number}: no source affirms: {said}"
    yield from dict.fromkeys(f"steps contradict each other: {name}" for name in _broken(sample))
    if not conclusion:
        yield "conclusion does not name the answer"
    yield from dict.fromkeys(f"leak: {leak}" for leak in leaks)


def _check_step(step: str, sample: Sample) -> StepCheck:
    if sample.task == "temporal":
        step = _NEW_IMAGE.sub("2nd", step)
    claims = tuple(_check_claim(finding, step, sample) for finding in step_claims(step, sample))
    verdicts = {claim.verdict for claim in claims}
    if not claims:
        return StepCheck("empty", ())
    if "contradicted" in verdicts:
        return StepCheck("contradicted", claims)
    unfounded = any(claim.unfounded for claim in claims)
    return StepCheck("unmentioned" if unfounded or "supported" not in verdicts else "supported", claims)


def _check_claim(finding: Finding, step: str, sample: Sample) -> ClaimCheck:
    check = _check_change(finding, sample) or check_claim(finding, _books(sample, step, finding))
    if check.verdict == "contradicted" and finding.polarity == "absent" and _of_a_kind(finding, step):
        return ClaimCheck(finding, "unmentioned")
    return check


def _of_a_kind(finding: Finding, step: str) -> bool:
    """Whether a denial is of one kind only ("no round opacity"), which another of its concept does not
    contradict. The findings room does not keep such adjectives."""
    before = step[finding.sentence_start : finding.start].lower()
    return _KIND.search(before) is not None


def _books(sample: Sample, step: str, finding: Finding) -> list[Book]:
    """The sources that a finding is held against. Of a temporal question a sentence on one image is held
    against that image's report, any other against both."""
    books: list[Book] = [("report", report_findings(sample.report))]
    if sample.task == "temporal":
        prior: Book = ("prior report", report_findings(str(sample.extra.get("prior_report", ""))))
        sentence = step[finding.sentence_start : finding.sentence_end]
        earlier, later = _EARLIER.search(sentence), _LATER.search(sentence)
        if earlier and not later:
            books = [prior]
        elif not later:
            both = [*report_findings(sample.report), *prior[1]]
            books = [("report", both)]
        return [*books, ("answer", answer_findings(sample) if finding.polarity == "present" else ())]
    return [*books, ("answer", answer_findings(sample))]


def _check_change(finding: Finding, sample: Sample) -> ClaimCheck | None:
    """A direction of change of the asked label that is not the answer's."""
    if sample.task != "temporal" or finding.change is None:
        return None
    asked = label_findings(asked_label(sample))
    witness = next((one for one in asked if one.concept == finding.concept), None)
    if witness is None or _CHANGE[finding.change] == sample.answer_text:
        return None
    return ClaimCheck(finding, "contradicted", "answer", witness)


def _broken(sample: Sample) -> list[str]:
    """Concepts that the steps affirm and deny at once, unless the report does so too or two times are told."""
    if sample.task == "temporal":
        return []
    known = {one.concept for one, _ in contradictions(report_findings(sample.report))}
    found = [
        finding
        for step in sample.reason_steps
        for finding in step_claims(step, sample)
        if finding.polarity == "present" or not _of_a_kind(finding, step)
    ]
    return [one.concept for one, _ in contradictions(found) if one.concept not in known]
