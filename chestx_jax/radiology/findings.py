"""Text to findings: what a chest X-ray text claims, with the words that claim it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from chestx_jax.radiology.attributes import attach
from chestx_jax.radiology.context import judge
from chestx_jax.radiology.mentions import Mention, compose, scan
from chestx_jax.radiology.ontology import TOKEN, load
from chestx_jax.radiology.text import lower, sentences

ASSERTIVE = ("definite", "uncertain")
"""The certainties that claim something about this film."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim. ``text[start:end]`` is the mention, ``text[sentence_start:sentence_end]`` its sentence.

    polarity:   present, absent
    certainty:  definite
                uncertain: "possible", "A or B", "cannot be excluded"; absent and uncertain is "unlikely", or
                  "otherwise clear", which denies only what was not named before
                hypothetical: not asserted ("we look for effusion", "would appear as", questions, topics,
                  INDICATION sections)
                historical: said of the past ("history of pneumonia")
    laterality: left, right, bilateral or None
    anatomy:    a place of ``places.toml``, as said or the usual one of the concept
    severity:   mild, moderate, severe or None; of an absent finding, what is denied ("no large effusion")
    change:     new, stable, worse, better or None
    """

    concept: str
    polarity: str
    certainty: str
    laterality: str | None
    anatomy: str | None
    severity: str | None
    change: str | None
    start: int
    end: int
    sentence_start: int
    sentence_end: int

    @property
    def asserted(self) -> bool:
        return self.certainty in ASSERTIVE


def extract_findings(text: str) -> list[Finding]:
    """All claims of a text in the order of its sentences. Every sentence is read on its own: no reference is
    followed across sentences ("no such signs are seen" claims nothing)."""
    found = []
    low = lower(text)
    for start, end, background in sentences(text):
        for name, polarity, certainty, side, place, degree, change, first, last in read_sentence(
            low[start:end]
        ):
            certainty = "hypothetical" if background else certainty
            span = (start + first, start + last, start, end)
            found.append(Finding(name, polarity, certainty, side, place, degree, change, *span))
    return found


@lru_cache(maxsize=65536)
def read_sentence(sentence: str) -> tuple[tuple, ...]:
    """The claims of one lower-case sentence: the fields of Finding with offsets into the sentence. Reports
    repeat sentences, so they are cached; ``read_sentence.cache_clear()`` empties the cache."""
    ontology = load()
    words = TOKEN.findall(sentence)
    items = scan(words, ontology)
    mentions = compose(items, words, ontology)
    if not mentions:
        return ()
    judge(items, words, mentions)
    attach(items, words, mentions, ontology)
    spans = [match.span() for match in TOKEN.finditer(sentence)]
    question = sentence.endswith("?")
    claims = []
    for mention in mentions:
        first, last = spans[mention.first][0], spans[mention.last - 1][1]
        for name, mark in mention.claims:
            claims.append((*_claim(mention, name, mark, question), first, last))
    return tuple(dict.fromkeys(claims))


def _claim(mention: Mention, name: str, mark: str, question: bool) -> tuple:
    concept = load().concepts[name]
    hedged = mention.hedged or mark == "?"
    if mark == "-":
        # "not normal" says that something is there, not what
        polarity, hedged = ("present", True) if mention.negated else ("absent", hedged)
    else:
        polarity = "absent" if mention.negated else "present"
    if mention.imagined or question:
        certainty = "hypothetical"
    elif mention.past and not concept.made:
        certainty = "historical"
    else:
        certainty = "uncertain" if hedged else "definite"
    side = None if concept.sides == "none" else mention.side
    place = load().places[mention.place].same if mention.place else concept.place
    return name, polarity, certainty, side, place, mention.severity, mention.change
