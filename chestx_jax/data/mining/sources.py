"""What a step can be held against: the report's findings, and what the right answer itself claims."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from chestx_jax.data.schema import NO_FINDING, Sample
from chestx_jax.radiology import Finding, extract_findings, load, relation


class MiningError(ValueError):
    """A sample or prompts that cannot be mined with; the message names the sample and its field, or the file."""


VERDICTS = ("supported", "contradicted", "unmentioned")
ALIKE = (
    frozenset({"calcification", "atherosclerosis"}),
    frozenset(
        {
            "calcification",
            "lymph node calcification",
            "granulomatous disease",
            "granuloma",
            "calcified nodule",
        }
    ),
    frozenset({"scarring", "fibrosis", "pleural thickening", "granulomatous disease"}),
    frozenset({"airspace disease", "infiltrate", "consolidation", "focal opacity", "lung opacity"}),
    frozenset({"emphysema", "chronic obstructive pulmonary disease", "hyperinflation", "bulla"}),
    frozenset({"fracture", "rib deformity", "vertebral deformity"}),
    frozenset({"nodule", "mass", "lung lesion", "granuloma"}),
)
"""Concepts that texts use for one another without implying each other; affirming one is no news beside the
other."""


_WHOLE = {"arosclerosis": "atherosclerosis", "cater": "catheter", "caters": "catheters"}
"""Words of released labels, which have lost the letters "the" wherever they stood."""
_LOST_THE = re.compile(rf"\b(?:{'|'.join(_WHOLE)})\b")


@dataclass(frozen=True)
class ClaimCheck:
    """One asserted finding of a step.

    Attributes:
      finding: with spans into the step.
      verdict: supported, contradicted or unmentioned.
      source: report, prior report or answer; None where unmentioned.
      witness: the finding of the source, with spans into the source's text; None where unmentioned.
    """

    finding: Finding
    verdict: str
    source: str | None = None
    witness: Finding | None = None

    @property
    def unfounded(self) -> bool:
        """It affirms, for certain, what no source says. A denial of what is not mentioned is none: what a report
        leaves out counts as normal (ChestX-Reasoner, arXiv 2504.20930)."""
        affirmed = self.finding.polarity == "present" and self.finding.certainty == "definite"
        return self.verdict == "unmentioned" and affirmed


Book = tuple[str, Sequence[Finding]]
"""(name of the source, its asserted findings)"""


@lru_cache(maxsize=4096)
def report_findings(report: str) -> tuple[Finding, ...]:
    """The asserted findings of a report, with spans into it. One without a side is left out where the same
    concept is affirmed on a side: "left effusion .. effusion" tells nothing of the right."""
    found = [finding for finding in extract_findings(report) if finding.asserted]
    sided = {one.concept for one in found if one.polarity == "present" and one.laterality}
    return tuple(
        one for one in found if one.polarity == "absent" or one.laterality or one.concept not in sided
    )


def answer_findings(sample: Sample) -> tuple[Finding, ...]:
    """What the right answer claims: the label of a binary question is present or absent, an option's or an
    open answer's labels are present. A temporal answer claims that its label is in one of the images."""
    if sample.task == "binary":
        label = asked_label(sample)
        polarity = "present" if sample.answer_text.lower() == "yes" else "absent"
        return tuple(replace(finding, polarity=polarity) for finding in label_findings(label))
    text = asked_label(sample) if sample.task == "temporal" else sample.answer_text
    return tuple(finding for part in labels_of(text) for finding in label_findings(part))


def asked_label(sample: Sample) -> str:
    """The label that a binary or temporal question asks for.

    Raises:
      MiningError: the sample does not say; it names the sample and the field.
    """
    label = sample.extra.get("label")
    if not isinstance(label, str) or not label.strip():
        raise MiningError(
            f"sample {sample.id!r}: field 'label' is missing; a {sample.task} question needs it"
        )
    return label


def labels_of(text: str) -> tuple[str, ...]:
    """The comma-joined labels of an option or an open answer."""
    return tuple(part for piece in text.split(",") if (part := piece.strip(" .")))


def label_findings(label: str) -> tuple[Finding, ...]:
    """The findings that a label names; none for "no finding" and for words that the ontology does not know."""
    if is_normal(label):
        return ()
    whole = _LOST_THE.sub(lambda word: _WHOLE[word.group()], label)
    found = [finding for finding in extract_findings(whole) if finding.asserted]
    return tuple(one for one in found if not any(_names_better(other, one) for other in found))


def _names_better(one: Finding, two: Finding) -> bool:
    """Whether `one` is the fitting concept of two that the same words name: calcification is atherosclerosis in
    the aorta and not elsewhere."""
    if (one.start, one.end) != (two.start, two.end):
        return False
    pair = (one.concept, two.concept)
    aorta = one.anatomy == "aorta"
    return pair == (("atherosclerosis", "calcification") if aorta else ("calcification", "atherosclerosis"))


def is_normal(label: str) -> bool:
    """Whether a label says that there is nothing to find."""
    return label.strip(" .").lower() in (NO_FINDING, "normal", "normal chest")


def check_claim(claim: Finding, books: Iterable[Book]) -> ClaimCheck:
    """The verdict of the sources on an asserted finding. The first source that speaks of just that concept
    decides, so a report outweighs the answer behind it. A relation between kin ("consolidation" for "opacity",
    `ALIKE`) counts where none does, and outweighs a conflict with kin ("calcified nodule" against "lungs clear"
    where the report names a granuloma)."""
    books = tuple(books)
    for name, findings in books:
        for rule in (_sure, _opposite):
            if check := _first(claim, name, findings, rule):
                return check
    for rule in (_kin, _conflicting):
        for name, findings in books:
            if check := _first(claim, name, findings, rule):
                return check
    return ClaimCheck(claim, "unmentioned")


_Rule = Callable[[Finding, Finding], str | None]


def _first(claim: Finding, name: str, findings: Sequence[Finding], rule: _Rule) -> ClaimCheck | None:
    for other in findings:
        if verdict := rule(claim, other):
            return ClaimCheck(claim, verdict, name, other)
    return None


def follows(claim: Finding, other: Finding) -> bool:
    """Whether a claim follows from another finding or equals it but for a side that one of them leaves open:
    "lung opacity" from "pneumonia", "no nodule" from "no lung lesion"."""
    if claim.polarity != other.polarity or {claim.laterality, other.laterality} == {"left", "right"}:
        return False
    if claim.concept == other.concept:
        return True
    sided = claim.laterality not in (None, other.laterality) and other.laterality != "bilateral"
    if claim.polarity == "absent":
        sided = other.laterality not in (None, "bilateral", claim.laterality)
    wider = load().ancestors if claim.polarity == "present" else load().descendants
    return claim.concept in wider[other.concept] and not sided


def _sure(claim: Finding, other: Finding) -> str | None:
    return "supported" if follows(claim, other) else None


def _opposite(claim: Finding, other: Finding) -> str | None:
    return _conflicting(claim, other) if claim.concept == other.concept else None


def _kin(claim: Finding, other: Finding) -> str | None:
    if relation(claim, other) == "kin":
        return "supported"
    if claim.polarity != "present" or other.polarity != "present":
        return None
    alike = any({claim.concept, other.concept} <= group for group in ALIKE)
    return "supported" if alike and {claim.laterality, other.laterality} != {"left", "right"} else None


def _conflicting(claim: Finding, other: Finding) -> str | None:
    """An uncertain denial ("otherwise clear") contradicts nothing."""
    doubtful = other.polarity == "absent" and other.certainty == "uncertain"
    return "contradicted" if not doubtful and relation(claim, other) == "conflict" else None
