"""What a step of reasoning claims, apart from what it only announces or weighs."""

from __future__ import annotations

import re

from chestx_jax.data.mining.sources import labels_of
from chestx_jax.data.schema import Sample
from chestx_jax.radiology import Finding, extract_findings, load

_LOOK = (
    r"assess|evaluat|examin|inspect|check|analy[sz]|investigat|review|search|look|scrutin|explor|consider|focus"
    r"|verif|screen"
)
_TOPIC = re.compile(
    r"\W*(?:(?:first|second|next|then|now|finally|lastly|further|furthermore|additionally|also|we|i|let us)(?:ly)?,? )*"
    r"(?:for|regarding|concerning|with (?:regard|respect) to|as for|in (?:terms|the case) of"
    rf"|(?:(?:in|when|while|upon|by|an?|the|my|our) )?(?:{_LOOK})\w*"
    r"|option \(?[A-Z]\)?,? (?:suggests|mentions|proposes|describes|lists|states|indicates|is|refers to|involves)"
    r"|to (?:assess|evaluate|determine|identify|detect|check|look|address|verify|rule)"
    r")\b[^,:;]*(?:[,:;]|$)",
    re.IGNORECASE,
)
"""Opens a sentence that first names what is looked at."""
_SOUGHT = re.compile(rf"\b(?:{_LOOK})\w*\b[^.;:]*?\b(?:for|whether|if)\b[^.;:]*$", re.IGNORECASE)
"""Stands before what is looked for: "the hila were examined for"."""
_DENIED = re.compile(
    r"\b(?:no|not|without|lack of|lacks|absence of|negates|nor)\b"
    r"(?:(?!\b(?:but|however|although|though|while|shows?|showed|reveal\w*|demonstrat\w*|confirm\w*|suggest\w*|is|are|was"
    r"|were|has|have|there|rather|only|just)\b)[^.;:])*$",
    re.IGNORECASE,
)
"""Stands before a mention that a long list carries too far from its "no"."""
_EXAMPLE = re.compile(
    r"\b(?:involv\w+|refers? to|related to|characteri[sz]ed by|typical(?:ly)?(?: of| associated with)?|would"
    r"|need to identify|identified by|indicators? include|necessitat\w+|(?:potential|possible) findings?"
    r"|(?:conditions?|diseases?|patholog\w+|causes?|diagnos[ei]s|complications?|infections?|indicators?|signs?|features?"
    r"|symptoms?|process\w*) (?:such as|like|including))\b[^.;]*$",
    re.IGNORECASE,
)
"""Stands before what is explained or given as an example."""
_NONE = re.compile(r"\b(?:no such|none)\b", re.IGNORECASE)
"""Behind a mention: what was looked for is not there."""
_WEIGHED = re.compile(
    r"\b(?:options|possibilities|whether|possibility of|candidates|choices)\b", re.IGNORECASE
)
_VERBS = frozenset({"shift", "shifts", "lead", "leads"})
"""Mentions that are verbs in the prose of reasoning: "attention shifts to", "may lead to"."""
_WHOLE_FILM = ("abnormality", "acute cardiopulmonary process")


def step_claims(step: str, sample: Sample) -> list[Finding]:
    """The asserted findings of a step, with spans into it, without

    * what a sentence only announces ("For an effusion, I look ..", "it was examined for ..") or lists as options,
    * what is given as an example or explained ("signs such as .."),
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
    start, end = finding.start - finding.sentence_start, finding.end - finding.sentence_start
    topic = _TOPIC.match(sentence)
    if (topic and start < topic.end()) or _SOUGHT.search(sentence[:start]):
        return True
    before = sentence[:start]
    if _DENIED.search(before) or _EXAMPLE.search(before) or _NONE.search(sentence[end:]):
        return True
    return bool(_WEIGHED.search(sentence)) or _lists_options(sentence, sample)


def _lists_options(sentence: str, sample: Sample) -> bool:
    if sample.options is None or sample.task in ("binary", "temporal"):
        return False
    text = sentence.lower()
    named = sum(all(label.lower() in text for label in labels_of(option)) for option in sample.options)
    return named >= max(3, len(sample.options) - 1)


def _taken_back(finding: Finding, told: list[Finding]) -> bool:
    if finding.polarity != "present":
        return False
    ancestors = load().ancestors[finding.concept]
    return any(
        later.polarity == "absent" and later.start > finding.start and later.concept in ancestors
        for later in told
        if {later.laterality, finding.laterality} != {"left", "right"}
    )
