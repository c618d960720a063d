"""Text to sentences: where statements begin and end in reports and in the markdown of language models."""

from __future__ import annotations

import re

_HEADINGS = (
    r"(?:clinical\s+)?(?:indications?|history|information)|reason\s+for\s+(?:the\s+)?(?:exam(?:ination)?|study)"
    r"|comparisons?|technique|procedure|findings?|impressions?|conclusions?|opinion|report"
)
_HEADINGS_UPPER = (
    r"(?:CLINICAL )?(?:INDICATIONS?|HISTORY|INFORMATION)|REASON FOR (?:THE )?(?:EXAM(?:INATION)?|STUDY)"
    r"|COMPARISONS?|TECHNIQUE|PROCEDURE|FINDINGS?|IMPRESSIONS?|CONCLUSIONS?|OPINION|REPORT"
)
_BACKGROUND = re.compile(
    r"\W*(?:(?:clinical\s+)?(?:indications?|history|information)|reason\s+for\s+[a-z ]+|comparisons?"
    r"|technique|procedure)\W*:",
    re.IGNORECASE,
)
_HEADING = re.compile(rf"\W*(?:{_HEADINGS})\W*:", re.IGNORECASE)
# every alternative begins with a plain set of characters: the engine then skips all others at once
_ENDS = (
    r"[.!?]+[\"'*)\u201d]*(?<!\bvs\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\b[Dd]r\.)(?=\s|$|<)"  # end of a sentence
    r"|\.(?=[A-Z][a-z])"  # "disease.No effusion"
    r"|\n(?=\s*(?:\n|[-*\u2022#>]|\d{1,2}[.)]|[A-Z][a-z]|[A-Z]\)))"  # line break that is not a soft wrap
    r"|</?(?:think|answer)>"
)
_END = re.compile(_ENDS)
_END_OR_HEADING = re.compile(_ENDS + rf"|\s(?=(?:{_HEADINGS_UPPER})\s*:)")  # "... pneumonia FINDINGS: ..."


def lower(text: str) -> str:
    """Lower-case text of the same length, so that spans hold for the original ('\u0130'.lower() has two
    characters)."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def sentences(text: str) -> list[tuple[int, int, bool]]:
    """(start, end, background) of every sentence with a word in it.

    A sentence ends at ``.``, ``!``, ``?``, a blank line, a list item, or a line that begins like a sentence;
    a line break within a sentence (reports are often wrapped) does not end it. ``background`` marks what
    stands under INDICATION, HISTORY, COMPARISON or TECHNIQUE: it is not about this film.
    """
    spans = []
    start = 0
    sections = ":" in text
    background = False
    ends = [match.end() for match in (_END_OR_HEADING if sections else _END).finditer(text)]
    ends.append(len(text))
    for end in ends:
        piece = text[start:end]
        stripped = piece.strip()
        if len(stripped) > 2:
            if sections and ":" in piece and _HEADING.match(piece):
                background = _BACKGROUND.match(piece) is not None
            first = start + piece.index(stripped[0])
            spans.append((first, first + len(stripped), background))
        start = end
    return spans
