"""A text as the offline RadRScore reads it: its sentences, and what they claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from chestx_jax.data.chat import Parsed, parse, split_steps
from chestx_jax.radiology import Finding, extract_findings

Key = tuple[str, str, str | None]
"""(concept, polarity, laterality)"""


class Located(NamedTuple):
    """A finding, with spans into the whole text, and the index of its sentence."""

    finding: Finding
    sentence: int

    @property
    def key(self) -> Key:
        return self.finding.concept, self.finding.polarity, self.finding.laterality


class Sentence(NamedTuple):
    """`text == source[start:end]`."""

    text: str
    start: int
    end: int

    @property
    def words(self) -> str:
        """For telling whether two sentences are the same."""
        return " ".join(self.text.lower().split())


@dataclass(frozen=True)
class Reading:
    """A text cut into sentences, and its asserted findings with spans into that text. `planned` are the
    sentences that name findings and assert none ("we look for an effusion")."""

    text: str
    sentences: tuple[Sentence, ...]
    mentions: tuple[Located, ...]
    planned: frozenset[int] = frozenset()
    answer: str | None = None

    @cached_property
    def keys(self) -> frozenset[Key]:
        return frozenset(mention.key for mention in self.mentions)

    @cached_property
    def affirmed(self) -> frozenset[str]:
        """The concepts that the text definitely affirms."""
        found = (mention.finding for mention in self.mentions)
        return frozenset(f.concept for f in found if f.polarity == "present" and f.certainty == "definite")

    @cached_property
    def claims(self) -> dict[Key, tuple[Located, ...]]:
        """Each asserted (concept, polarity, laterality) once, with its mentions. A claim without a side is
        dropped where the text also makes it with one."""
        groups: dict[Key, list[Located]] = {}
        for mention in self.mentions:
            groups.setdefault(mention.key, []).append(mention)
        sided = {key[:2] for key in groups if key[2]}
        return {key: tuple(group) for key, group in groups.items() if key[2] or key[:2] not in sided}


def read_steps(steps: Sequence[str], answer: str | None = None) -> Reading:
    """Steps as a reading of "\\n".join(steps); each step is cut into its sentences."""
    spans, start = [], 0
    for step in steps:
        spans += [(start + s.start, start + s.end) for s in split_steps(step)]
        start += len(step) + 1
    return _read("\n".join(steps), spans, answer)


def read_text(text: str) -> Reading:
    """A completion: its reasoning and its answer, as `data.chat.parse` finds them."""
    parsed = parse_once(text)
    return _read(text, parsed.spans, parsed.answer)


@lru_cache(maxsize=8192)
def parse_once(text: str) -> Parsed:
    """`data.chat.parse`, remembered: every reward reads the same completions."""
    return parse(text)


def _read(text: str, spans: Iterable[tuple[int, int]], answer: str | None) -> Reading:
    sentences: list[Sentence] = []
    mentions: list[Located] = []
    planned: list[int] = []
    for start, end in spans:
        piece = text[start:end]
        found = extract_findings(piece)
        asserted = [Located(shift(finding, start), len(sentences)) for finding in found if finding.asserted]
        if found and not asserted:
            planned.append(len(sentences))
        mentions += asserted
        sentences.append(Sentence(piece, start, end))
    return Reading(text, tuple(sentences), tuple(mentions), frozenset(planned), answer)


def shift(finding: Finding, by: int) -> Finding:
    """The finding with its spans moved."""
    f = finding  # spelled out: dataclasses.replace takes eight times as long, and this is the inner loop
    what = (f.concept, f.polarity, f.certainty, f.laterality, f.anatomy, f.severity, f.change)
    return Finding(*what, f.start + by, f.end + by, f.sentence_start + by, f.sentence_end + by)
