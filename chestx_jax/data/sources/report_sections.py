"""A report's text -> its FINDINGS and IMPRESSION, as the section parser of the MIMIC-CXR release splits it.

The behaviour, not the code, of `mimic-cxr/txt/section_parser.py` (MIT-LCP): a section begins at a line whose
first words are in capitals and end in a colon; spellings and synonyms of a heading count as it ("CONCLUSION"
is an impression, "CHEST, TWO VIEWS" are findings); of several sections of one kind the last that is not empty
counts; a report with neither gives the last section's text after its first paragraph. Beyond that, the common
headings are also found within a line, since other collections print a report in one. The parser's table of
single MIMIC-CXR studies with individual rules is not taken over.
"""

import difflib
import re
from functools import lru_cache

_COMMON = "FINDINGS|IMPRESSION|CONCLUSION|COMPARISON|INDICATION|TECHNIQUE|EXAMINATION|CLINICAL HISTORY"
_HEADING = re.compile(rf"(?:^[ \t]*([A-Z][A-Z ()/,-]+)|(?<=[.\s])({_COMMON})):(?=\s|$)", re.MULTILINE)
_NAMES = ("impression", "findings", "finding", "indication", "comparison")
_NEITHER = re.compile(r"history|comparison|addendum|indication|technique|exam|recommend|read|reason|notif")
_VIEWS = re.compile(r"chest|portable|\bviews?\b|\b(pa|ap|lateral|frontal) and\b|bone window|upright|\bribs\b")


def findings_and_impression(text: str) -> tuple[str, str]:
    """The two sections on one line each, "" for one that is not there."""
    marks = list(_HEADING.finditer(text))
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    found = {"findings": "", "impression": ""}
    for mark, end in zip(marks, ends, strict=True):
        body = _one_line(text[mark.end() : end])
        kind = _kind((mark[1] or mark[2]).lower().strip())
        if kind and body:
            found[kind] = body
    if not any(found.values()):
        last = text[marks[-1].end() :] if marks else text
        found["findings"] = _one_line(" ".join(re.split(r"\n[ \t]*\n", last.strip())[1:]))
    return found["findings"], found["impression"]


@lru_cache(maxsize=4096)
def _kind(heading: str) -> str | None:
    """What a heading opens; misspelt ones ("IMPRESSON") and those that name the views count too."""
    if "impression" in heading or heading == "conclusion":
        return "impression"
    if "findings" in heading:
        return "findings"
    if close := difflib.get_close_matches(heading, _NAMES, 1, 0.8):
        return {"impression": "impression", "findings": "findings", "finding": "findings"}.get(close[0])
    return "findings" if _VIEWS.search(heading) and not _NEITHER.search(heading) else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
