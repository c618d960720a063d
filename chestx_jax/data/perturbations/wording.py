"""Edits of words that turn a true step into a false one. None where the step has no such words; whether the
result is false is checked elsewhere (`rewrite`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

_SIDES: Mapping[str, str] = {
    "right middle lobe": "lingula",
    "lingula": "right middle lobe",
    "left": "right",
    "right": "left",
}
"""The left lung has no middle lobe: its counterpart is the lingula."""
_DEGREES: Mapping[str, str] = {
    "small": "large",
    "large": "small",
    "mild": "severe",
    "severe": "mild",
    "mildly": "markedly",
    "markedly": "mildly",
    "severely": "mildly",
    "slightly": "markedly",
}
"""The two ends of a scale. A moderate one next to them is a matter of taste, so it is left alone."""
_CHANGES: Mapping[str, str] = {
    "improved": "worsened",
    "worsened": "improved",
    "improving": "worsening",
    "worsening": "improving",
    "increased": "decreased",
    "decreased": "increased",
    "increasing": "decreasing",
    "decreasing": "increasing",
    "progressed": "improved",
    "larger": "smaller",
    "smaller": "larger",
    "more extensive": "less extensive",
    "less extensive": "more extensive",
    "shows more of": "shows less of",
    "shows less of": "shows more of",
}
_FROM_TO = re.compile(r"\b(went from )(\w+)( to )(\w+)\b|\b(was )(\w+)( and is now )(\w+)\b")
_STATEMENT = re.compile(
    r"(?P<subject>[A-Z][\w ]*?) (?P<verb>is|are) (?P<state>present|seen|absent|not seen)(?P<details>[,:][^.]*)?\."
)
_NEGATED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), into)
    for pattern, into in (
        (r"^(There (?:is|are)) no (?:evidence of |sign of )?(?=\w)", r"\1 "),
        (
            r"^No (?:evidence of |sign of )?([\w\s]+?) (is|are) (seen|visible|present|noted|identified)",
            r"\1 \2 \3",
        ),
        (r"^No (?:evidence of |sign of )?(?=\w)", r"There is "),
        (r"\b(is|are|was|were) not (?=\w)", r"\1 "),
        (r"\b(is|are) absent\b", r"\1 present"),
        (r"^(There (?:is|are)) (?:an? )?(?=\w)", r"\1 no "),
        (
            r"\b(is|are) (?=(?:present|seen|visible|noted|evident|\w*ly enlarged|enlarged|widened|congested)\b)",
            r"\1 not ",
        ),
        (r"\b(shows?|reveals?|demonstrates?|indicates?) (?:an? |the )?(?=\w)", r"\1 no "),
    )
)
"""The first that matches is done. What it makes of longer sentences is often no denial: then it is thrown away."""


@dataclass(frozen=True)
class Statement:
    """A step of the form "Pleural effusion is present, small, on the left.", "Rib fractures are not seen."

    Attributes:
      word: "present" or "seen": how the reading speaks of what is there; it denies with "absent" or "not seen".
      details: what follows "present" with its comma or colon, "" for nothing; None where the finding is denied.
    """

    subject: str
    verb: str
    word: str
    details: str | None

    @classmethod
    def read(cls, step: str) -> Statement | None:
        """The statement that `step` is, None for any other form."""
        found = _STATEMENT.fullmatch(step)
        if not found:
            return None
        state = found["state"]
        denied = state in ("absent", "not seen")
        word = "present" if state in ("present", "absent") else "seen"
        return cls(found["subject"], found["verb"], word, None if denied else found["details"] or "")

    def __str__(self) -> str:
        if self.details is None:
            return f"{self.subject} {self.verb} {'absent' if self.word == 'present' else 'not seen'}."
        return f"{self.subject} {self.verb} {self.word}{self.details}."

    def but(self, details: str | None) -> str:
        """The same subject with other details, or denied."""
        return str(replace(self, details=details))


def negated(step: str) -> str | None:
    """A free sentence with its first negation taken out, or one put in."""
    for pattern, into in _NEGATED:
        text, count = pattern.subn(into, step, count=1)
        if count:
            return text[0].upper() + text[1:]
    return None


def other_side(step: str) -> str | None:
    """Left for right and right for left, throughout."""
    return _swapped(step, _SIDES)


def other_degree(step: str) -> str | None:
    """Small for large, mild for severe, and back."""
    return _swapped(step, _DEGREES)


def other_direction(step: str) -> str | None:
    """The change the other way round: what was then is now ("was small and is now large"), or the opposite verb."""
    if found := _FROM_TO.search(step):
        head, before, middle, after = (group for group in found.groups() if group is not None)
        if before == after:
            return None
        return step[: found.start()] + head + after + middle + before + step[found.end() :]
    return _swapped(step, _CHANGES)


def from_to(step: str) -> bool:
    """Whether the step tells two states of one finding: "was small and is now large", "stays small, as before"."""
    return bool(_FROM_TO.search(step)) or " as before" in step or " is still " in step


def _swapped(step: str, table: Mapping[str, str]) -> str | None:
    words = re.compile(rf"\b(?:{'|'.join(table)})\b", re.IGNORECASE)

    def swap(found: re.Match[str]) -> str:
        new = table[found[0].lower()]
        return new[0].upper() + new[1:] if found[0][0].isupper() else new

    text = words.sub(swap, step)
    return None if text == step else text
