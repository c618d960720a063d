"""Every line of sentences.txt, which is the specification of single sentences."""

import re
from pathlib import Path

import pytest

from chestx_jax.radiology import Finding, extract_findings, load

_LINES = Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines()
CASES = [line.split(" => ") for line in _LINES if line and not line.startswith("#")]
_MARKS = {
    "+": ("present", "definite"),
    "-": ("absent", "definite"),
    "?": ("present", "uncertain"),
    "-?": ("absent", "uncertain"),
    "~": ("present", "hypothetical"),
    "<": ("present", "historical"),
}
_CLAIM = re.compile(
    r"(-\?|[-+?~<])([^@/>#]+?)\s*(?:@(\w+)\s*)?(?:#([^/>@]+?)\s*)?(?:/(\w+)\s*)?(?:#([^/>@]+?)\s*)?(?:>(\w+))?$"
)


def _matches(claim: str, finding: Finding) -> bool:
    match = _CLAIM.match(claim.strip())
    assert match, claim
    mark, concept, side, place, severity, later_place, change = match.groups()
    assert concept in load().concepts, claim
    return (
        (finding.concept, finding.polarity, finding.laterality) == (concept, _MARKS[mark][0], side)
        and finding.certainty == _MARKS[mark][1]
        and (place or later_place) in (None, finding.anatomy)
        and severity in (None, finding.severity)
        and change in (None, finding.change)
    )


@pytest.mark.parametrize(("sentence", "expected"), CASES, ids=[case[0] for case in CASES])
def test_sentence(sentence: str, expected: str) -> None:
    found = extract_findings(sentence)
    claims = [] if expected == "nothing" else expected.split(";")
    unexplained = [finding for finding in found if not any(_matches(claim, finding) for claim in claims)]
    missing = [claim for claim in claims if not any(_matches(claim, finding) for finding in found)]
    assert not unexplained and not missing, f"not said by the table: {unexplained}; not found: {missing}"
    for finding in found:
        assert sentence[finding.start : finding.end].strip() == sentence[finding.start : finding.end] != ""
        assert finding.sentence_start <= finding.start < finding.end <= finding.sentence_end


def test_the_table_is_a_table() -> None:
    assert len(CASES) >= 150
    assert len({sentence for sentence, _ in CASES}) == len(CASES)
