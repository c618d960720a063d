"""Free reasoning text -> steps: sentences and list entries with their place in the text. No model."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_MARKER = re.compile(
    r"(?:[-*•–—]+|#{1,6}|\(?\d{1,2}[.)])(?=\s)|(?:\*\*|__)?(?:Step|STEP) \d+\s*[:.)](?:\*\*|__)?"
)
"""Opens a list entry or a heading: "- ", "* ", "3. ", "(2) ", "## ", "Step 4:"."""
_INLINE_MARKER = re.compile(r"\(?\d{1,2}[.)]")
_END = re.compile(r"[.!?]+[\"'”’)\]*_]*(?=\s)")
_LATIN = ("e.g", "i.e", "vs", "cf", "approx", "ca", "resp", "incl", "viz", "al")
_TITLES = (
    "dr",
    "mr",
    "mrs",
    "ms",
    "prof",
    "st",
    "jr",
    "sr",
    "fig",
    "figs",
    "eq",
    "inc",
    "pt",
    "pts",
    "hx",
    "tx",
)
_ABBREVIATIONS = frozenset((*_LATIN, *_TITLES))
_NUMBER_ABBREVIATIONS = frozenset(("no", "nos", "vol", "p", "pp", "ch", "sec"))
"""Abbreviations only before a digit: "no. 3", but "the answer is no. The heart .."."""
_LINE_END = re.compile(r"[.!?:;][\"'”’)\]*_]*$")
_HASHES = re.compile(r"#{1,6}\s")
_BULLET = re.compile(r"^(?:[-*•]+\s+|\(?\d{1,2}[.)]\s+)")
_BOLD = re.compile(r"(\*\*|__)[^*_]+\1:?")
_OPTION = re.compile(r"[(\"']?[A-Z]")
_WORD = re.compile(r"[^\s(\[\"'“‘*_]+$")


class Step(NamedTuple):
    """One step: `text == source[start:end]`, without list markers and outer white space."""

    text: str
    start: int
    end: int


def split_steps(text: str) -> tuple[Step, ...]:
    """Splits reasoning into steps: sentences; every list entry begins a new one.

    A full stop ends a sentence when white space follows, the word before it is no abbreviation and what
    follows does not begin in lower case; so "1.5 cm", "e.g. X" and "approx. 2 cm" stay whole while "at T8.
    The", "XXXX. The" and "the answer is B. Therefore" end. A line end ends a step too, unless the next line
    goes on in lower case (a wrapped line). Headings and lines that only announce a list ("Findings:",
    "**Lungs**:") are no steps; list markers and numbering belong to no step.
    """
    return tuple(step for start, end in _blocks(text) for step in _sentences(text, start, end))


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Spans of lines, wrapped lines joined, headings left out."""
    spans: list[tuple[int, int]] = []
    position, joinable = 0, False
    for line in text.split("\n"):
        end = position + len(line)
        stripped = line.strip()
        if joinable and stripped[:1].islower():
            spans[-1] = (spans[-1][0], end)
        elif stripped and not _is_heading(stripped):
            spans.append((position, end))
            joinable = True
        else:
            joinable = False
        if stripped and _LINE_END.search(stripped):
            joinable = False
        position = end + 1
    yield from spans


def _is_heading(line: str) -> bool:
    if _HASHES.match(line) or not any(c.isalnum() for c in line):
        return True
    bare = _BULLET.sub("", line)
    if _BOLD.fullmatch(bare):
        return True
    return bare.rstrip("*_ ").endswith(":") and _END.search(bare) is None


def _sentences(text: str, start: int, end: int) -> Iterator[Step]:
    start = _skip_markers(text, start, end)
    begin = start
    for match in _END.finditer(text, start, end):
        if not match.end() < end or not _ends_sentence(text, begin, match, end):
            continue
        yield from _step(text, begin, match.end())
        begin = _skip_markers(text, match.end(), end)
    yield from _step(text, begin, end)


def _ends_sentence(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    after = text[match.end() : end].lstrip()
    if not after:
        return False  # the rest of the span is the sentence anyway
    if after.lstrip("\"'“‘([*_")[:1].islower():
        return False
    if text[match.start() : match.start() + 1] != "." or match.group().startswith(".."):
        return True
    before = _WORD.search(text, begin, match.start())
    word = before.group().lower() if before else ""
    if _INLINE_MARKER.fullmatch(text[begin : match.start() + 1].strip(" *_")):
        return False  # "2." alone numbers the sentence that follows
    if _OPTION.fullmatch(text[begin : match.start()].strip(" *_")):
        return False  # "A. Yes": an option's letter, not a sentence
    if word in _ABBREVIATIONS:
        return False
    return not (word in _NUMBER_ABBREVIATIONS and after[:1].isdigit())


def _skip_markers(text: str, start: int, end: int) -> int:
    while start < end:
        while start < end and text[start].isspace():
            start += 1
        marker = _MARKER.match(text, start, end)
        if not marker:
            break
        start = marker.end()
    return start


def _step(text: str, start: int, end: int) -> Iterator[Step]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if any(c.isalnum() for c in text[start:end]):
        yield Step(text[start:end], start, end)
