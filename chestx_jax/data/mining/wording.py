"""Findings as sentences: what is seen, in the words of an observation. The words are in `wording.toml`."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from chestx_jax.data.mining.sources import ALIKE, label_findings
from chestx_jax.radiology import Finding, extract_findings, load, relation
from chestx_jax.radiology.ontology import plural

_DEGREES: Mapping[str, Mapping[str, str]] = {
    "size": {"mild": "small", "moderate": "moderate-sized", "severe": "large"},
    "grade": {"mild": "mild", "moderate": "moderate", "severe": "severe"},
    "none": {},
}
_OVERLYING = ("bones", "ribs", "spine", "clavicle", "shoulder", "chest wall", "soft tissues", "breast")
_ADVERBS = {"mild": "mildly ", "moderate": "moderately ", "severe": "markedly "}


@dataclass(frozen=True)
class Words:
    """One concept's entry in `wording.toml`, which explains the fields."""

    noun: str
    many: str = ""
    kind: str = "mass"
    degree: str = "grade"
    home: str = ""
    look: str = ""
    sign: str = ""
    present: tuple[str, ...] = ()
    both: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@cache
def _tables() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("wording.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def words_of(concept: str) -> Words:
    """How a concept is said.

    Raises:
      KeyError: `wording.toml` has no line for it.
    """
    entry = _tables()["concepts"][concept]
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return Words(**fields)


def looks(concept: str, place: str | None = None) -> str:
    """The structures that one looks at for a concept, at `place` or where it usually sits."""
    table, usual = _tables()["looks"], load().concepts[concept].place
    if words_of(concept).look and place in (None, usual):
        return words_of(concept).look
    for name in (place, usual):
        if name in table:
            return table[name]
    return table[""]


def where(finding: Finding) -> str:
    """ "at the left lung base"; the concept's `home` where no more is known than its usual place."""
    usual = load().concepts[finding.concept].place
    row = 0 if finding.laterality in ("left", "right") else 1 if finding.laterality == "bilateral" else 2
    if row == 2 and finding.anatomy in (usual, None):
        return words_of(finding.concept).home
    places = _tables()["places"]
    name = finding.anatomy if finding.anatomy in places else usual
    if name not in places:
        return (
            ("", "", "")[row] if row == 2 else f"on the {finding.laterality}" if row == 0 else "on both sides"
        )
    return places[name][row].format(side=finding.laterality)


def placed(finding: Finding) -> Finding:
    """The finding at a place that can be said: its usual one where the text's has no words here, or is a bone
    that a shadow in the lung only overlies."""
    usual = load().concepts[finding.concept].place
    overlain = usual == "lung" and finding.anatomy in _OVERLYING
    if finding.anatomy in _tables()["places"] and not overlain:
        return finding
    return replace(finding, anatomy=usual)


@dataclass(frozen=True)
class Phrase:
    """A finding as a noun: article and degree, place, and whether it takes "are"."""

    text: str
    place: str
    plural: bool

    @property
    def full(self) -> str:
        return f"{self.text} {self.place}".strip()

    @property
    def be(self) -> str:
        return "are" if self.plural else "is"


def phrase(finding: Finding, many: bool = False) -> Phrase:
    """ "a small pleural effusion" + "on the left", "mild atelectasis" + "at both lung bases". What can be
    counted is plural on both sides, and where `many` says so."""
    words = words_of(finding.concept)
    several = words.kind == "count" and (many or finding.laterality == "bilateral")
    name = (words.many or _plural(words.noun)) if several else words.noun
    degree = _degree(finding, words)
    graded = f"{degree} {name}" if degree else name
    single = words.kind == "count" and not several
    text = f"{_article(graded)} {graded}" if single else graded
    return Phrase(text, where(finding), several or words.kind == "plural")


def _plural(name: str) -> str:
    head, _, last = name.rpartition(" ")
    return f"{head} {plural(last)}".strip()


def _degree(finding: Finding, words: Words) -> str:
    return _DEGREES[words.degree].get(finding.severity or "", "")


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def named(label: str) -> str:
    """A label as part of a sentence, with an article where it is a plain name of what can be counted."""
    found = label_findings(label)
    text = label if label[:2].isupper() else label[:1].lower() + label[1:]
    if len(found) == 1 and words_of(found[0].concept).noun == text:
        return phrase(found[0]).text
    return text


def present(finding: Finding, rng: random.Random, many: bool = False) -> str:
    """A sentence that affirms a finding; an uncertain one is doubted.

    Raises:
      ValueError: no sentence of `wording.toml` says it; it names the finding.
    """
    noun = phrase(finding, many)
    if finding.certainty == "uncertain":
        return _pick(
            [f"There may be {noun.full}.", f"Possibly there {noun.be} {noun.full}."], (), finding, rng
        )
    plain = [f"There {noun.be} {noun.full}.", f"I see {noun.full}."]
    if not noun.place.startswith("of "):
        plain += [_sentence(f"{noun.text} {noun.be} {seen} {noun.place}") for seen in ("visible", "present")]
    if many and not any(says(sentence, finding) for sentence in plain):
        return present(finding, rng)
    return _pick(list(_states(finding)), plain, finding, rng)


def _states(finding: Finding) -> Iterator[str]:
    words = words_of(finding.concept)
    sided = finding.laterality in ("left", "right")
    degree = _degree(finding, words)
    for template in words.both if finding.laterality == "bilateral" else words.present:
        sentence = template.format(
            adverb=_ADVERBS.get(finding.severity or "", ""),
            grade=f"{degree} " if degree else "",
            size_article=f"{_article(degree)} {degree} " if degree else "a ",
            side=f"{finding.laterality} " if sided else "",
            toward=f" to the {finding.laterality}" if sided else "",
            where=where(finding),
        )
        yield sentence.replace(" .", ".")


def absent(finding: Finding, rng: random.Random) -> str:
    """A sentence that denies a finding, on the left or right only where it names one.

    Raises:
      ValueError: no sentence of `wording.toml` says it; it names the finding.
    """
    if finding.laterality == "bilateral":
        finding = replace(finding, laterality=None, anatomy=load().concepts[finding.concept].place)
    words, place = words_of(finding.concept), where(finding)
    be = "are" if words.kind == "plural" else "is"
    plain = [_sentence(f"there {be} no {words.noun} {place}"), _sentence(f"I see no {words.noun} {place}")]
    if not place.startswith("of "):
        plain.append(_sentence(f"no {words.noun} {be} seen {place}"))
    return _pick(() if finding.laterality else words.absent, plain, finding, rng)


def _sentence(text: str) -> str:
    return f"{capital(text.strip())}."


def _pick(first: Sequence[str], second: Sequence[str], finding: Finding, rng: random.Random) -> str:
    """One of the first sentences that say just the finding, else of the second; without side and place where
    none can say them ("scoliosis on both sides")."""
    for candidates in (first, second):
        if good := [sentence for sentence in candidates if says(sentence, finding)]:
            return rng.choice(good)
    bare = replace(finding, laterality=None, anatomy=load().concepts[finding.concept].place)
    if bare != finding:
        return present(bare, rng) if finding.polarity == "present" else absent(bare, rng)
    raise ValueError(
        f"wording.toml: no sentence says {finding.polarity} {finding.concept}: {[*first, *second]}"
    )


def says(sentence: str, finding: Finding) -> bool:
    """Whether a sentence, read by the findings room, claims the finding and nothing that goes beyond it."""
    told = [one for one in extract_findings(sentence) if one.asserted]
    wanted = (finding.concept, finding.polarity, finding.laterality)
    return any((one.concept, one.polarity, one.laterality) == wanted for one in told) and all(
        relation(one, finding) in ("same", "entailed") or _alike(one, finding) for one in told
    )


def _alike(one: Finding, two: Finding) -> bool:
    same = (one.polarity, one.laterality) == (two.polarity, two.laterality)
    return same and any({one.concept, two.concept} <= group for group in ALIKE)


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def listed(parts: Sequence[str], last: str = "and") -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"
