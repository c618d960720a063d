"""What a step of reasoning claims, apart from what it only announces or weighs."""

from __future__ import annotations

import re

from chestx_jax.data.mining.sources import labels_of
from chestx_jax.data.schema import Sample
from chestx_jax.radiology import Finding, extract_findings, load

_TOPIC = re.compile(
    r"\W*(?:(?:first|next|then|now|finally|lastly|further|furthermore|also|we|i)(?:ly)?,? )*"
    r"(?:for|regarding|concerning|considering|consider|with (?:regard|respect) to|as for|in (?:terms|the case) of"
    r"|(?:in|when|while|upon) (?:assessing|evaluating|examining|investigating|looking|inspecting|checking|analyzing)"
    r"|(?:examining|inspecting|assessing|evaluating|analyzing|investigating|scrutiny|inspection|assessment|evaluation)"
    r"|option \(?[A-Z]\)?,? (?:suggests|mentions|proposes|describes|lists|states|indicates|is|refers to)"
    r"|to (?:assess|evaluate|determine|identify|detect|check|look|address|verify)"
    r")\b[^,:;]*(?:[,:;]|$)",
    re.IGNORECASE,
)
"""Opens a sentence that first names what is looked at."""
_WEIGHED = re.compile(
    r"\b(?:options|possibilities|whether|possibility of|candidates|choices)\b", re.IGNORECASE
)
_VERBS = frozenset({"shift", "shifts", "lead", "leads"})
"""Mentions that are verbs in the prose of reasoning: "attention shifts to", "may lead to"."""
_WHOLE_FILM = ("abnormality", "acute cardiopulmonary process")


def step_claims(step: str, sample: Sample) -> list[Finding]:
    """The asserted findings of a step, with spans into it, without

    * what a sentence only announces ("For an effusion, I look ..") or lists as options,
    * affirmations of "an abnormality", which say nothing that can be checked,
    * affirmations that the rest of the step denies: "Next comes pneumonia. No opacity is seen": the last word
      counts.
    """
    found = [finding for finding in extract_findings(step) if finding.asserted]
    told = [finding for finding in found if not _announced(finding, step, sample)]
    return [finding for finding in told if not _taken_back(finding, told)]


def _announced(finding: Finding, step: str, sample: Sample) -> bool:
    if finding.polarity != "present":
        return False
    if finding.concept in _WHOLE_FILM or step[finding.start : finding.end].lower() in _VERBS:
        return True
    sentence = step[finding.sentence_start : finding.sentence_end]
    topic = _TOPIC.match(sentence)
    if topic and finding.start - finding.sentence_start < topic.end():
        return True
    return bool(_WEIGHED.search(sentence)) or _lists_options(sentence, sample)


def _lists_options(sentence: str, sample: Sample) -> bool:
    if sample.options is None or sample.task in ("binary", "temporal"):
        return False
    text = sentence.lower()
    return sum(all(label.lower() in text for label in labels_of(option)) for option in sample.options) > 1


def _taken_back(finding: Finding, told: list[Finding]) -> bool:
    if finding.polarity != "present":
        return False
    ancestors = load().ancestors[finding.concept]
    return any(
        later.polarity == "absent" and later.start > finding.start and later.concept in ancestors
        for later in told
        if {later.laterality, finding.laterality} != {"left", "right"}
    )
