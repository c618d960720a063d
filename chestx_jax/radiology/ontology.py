"""The vocabulary of chest X-ray texts, read once from the data files beside it.

``vocabulary/concepts.toml`` says what can be claimed, ``places.toml`` where and in which state, ``cues.toml``
which words decide polarity, certainty, side, severity and change. Each file explains its own syntax. This
module turns them into one token trie.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

LABELS = (
    "no finding",
    "enlarged cardiomediastinum",
    "cardiomegaly",
    "lung opacity",
    "lung lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural effusion",
    "pleural other",
    "fracture",
    "support devices",
)
"""The 14 labels of CheXpert (Irvin et al. 2019), lower-case, in its order."""

TOKEN = re.compile(r"[a-z0-9]+|[,;:/?&+\u2013\u2014]")
"""What the matcher sees of a lower-cased text. Hyphens, quotes and markdown marks only separate."""

CUES = (
    "negate_before",
    "negate_after",
    "negate",
    "hedge",
    "hedge_after",
    "unlikely",
    "imagined_before",
    "imagined_clause",
    "historical_before",
    "remainder",
    "stops",
    "links",
    "link_hedge",
    "verbs",
    "seen",
    "prepositions",
    "comma",
    "and",
    "or",
    "passes",
)


class OntologyError(ValueError):
    """A data file of the ontology contradicts itself; the message names file, entry and field."""


@dataclass(frozen=True)
class Concept:
    """One thing a text can claim; the fields are explained in ``concepts.toml``."""

    name: str
    label: str | None
    parents: tuple[str, ...]
    place: str | None
    sides: str
    made: bool


@dataclass(frozen=True)
class Place:
    """A structure or region, named ``same`` when this is another word for a place; ``claims`` maps a state to
    claims like ``("-cardiomegaly",)``."""

    name: str
    same: str
    side: str | None
    within: str | None
    claims: Mapping[str, tuple[str, ...]]


class Node:
    """One step in the token trie; ``entry`` is (kind, value) where a phrase ends."""

    __slots__ = ("entry", "next")

    def __init__(self) -> None:
        self.next: dict[str, Node] = {}
        self.entry: tuple[str, Any] | None = None


@dataclass(frozen=True)
class Ontology:
    concepts: Mapping[str, Concept]
    places: Mapping[str, Place]
    alone: Mapping[str, str]
    trie: Node
    ancestors: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """concept -> itself and everything it implies when present"""
    descendants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """concept -> itself and everything that is absent when it is"""


def expand(phrase: str) -> Iterator[tuple[str, ...]]:
    """All token sequences of a phrase: ``"a|b c?"`` gives (a, c), (b, c), (a,), (b,)."""
    slots = []
    for slot in phrase.split():
        options: list[tuple[str, ...]] = [()] if slot.endswith("?") and len(slot) > 1 else []
        words = slot[:-1] if options else slot
        parts = [slot] if slot == "w/o" or slot in {"h/o", "s/p", "r/o", "and/or", "/"} else words.split("|")
        slots.append(options + [tuple(TOKEN.findall(part)) for part in parts])
    for choice in itertools.product(*slots):
        if tokens := tuple(itertools.chain.from_iterable(choice)):
            yield tokens


def plural(word: str) -> str:
    """The regular English plural; irregular ones stand in the data files."""
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def _read(name: str) -> dict[str, Any]:
    text = resources.files(__package__).joinpath("vocabulary").joinpath(name).read_text(encoding="utf-8")
    return tomllib.loads(text)


def _entries(concepts: dict[str, Any], places: dict[str, Any], cues: dict[str, Any]) -> Iterator[tuple]:
    """(file and entry for messages, phrase, kind, value, whether to add plurals) of every phrase."""
    for name, table in concepts.items():
        for phrase in table["phrases"]:
            yield f"concepts.toml: {name}", phrase, "concept", (name, ""), True
        for phrase in table.get("normal", ()):
            yield f"concepts.toml: {name}", phrase, "concept", (name, "-"), False
    for name, table in places["places"].items():
        for phrase in table["phrases"]:
            yield f"places.toml: {name}", phrase, "place", name, True
    for name, phrases in places["states"].items():
        for phrase in phrases:
            yield f"places.toml: states.{name}", phrase, "state", name, False
    for kind in CUES:
        for phrase in cues[kind]["phrases"]:
            yield f"cues.toml: {kind}", phrase, kind, None, False
    for kind in ("change", "severity", "side"):
        for name, table in cues[kind].items():
            for phrase in table["phrases"]:
                yield f"cues.toml: {kind}.{name}", phrase, kind, name, False


def _trie(entries: Iterable[tuple]) -> Node:
    """One trie over all phrases. A phrase may mention several concepts, but be of one kind only."""
    root, origin = Node(), {}
    for where, phrase, kind, value, plurals in entries:
        for tokens in expand(phrase):
            forms = [tokens, (*tokens[:-1], plural(tokens[-1]))] if plurals else [tokens]
            for form in forms:
                node = root
                for token in form:
                    node = node.next.setdefault(token, Node())
                if node.entry is None:
                    node.entry = (kind, (value,) if kind == "concept" else value)
                    origin[form] = where
                elif kind == "concept" and node.entry[0] == "concept":
                    if value not in node.entry[1]:
                        node.entry = (kind, (*node.entry[1], value))
                elif node.entry != (kind, value):
                    raise OntologyError(
                        f"{where}: phrase {' '.join(form)!r} already belongs to {origin[form]}"
                    )
    return root


def _closure(parents: Mapping[str, tuple[str, ...]]) -> dict[str, frozenset[str]]:
    def up(name: str) -> frozenset[str]:
        return frozenset({name}).union(*(up(parent) for parent in parents[name]))

    return {name: up(name) for name in parents}


def _claims(places: Mapping[str, Any], name: str | None, state: str) -> list[str]:
    """What a place in a state claims; without claims of its own, what the larger place does."""
    while name is not None:
        if state in places[name]:
            return places[name][state]
        name = places[name].get("within", places[name].get("same"))
    return []


def _check(concepts: Mapping[str, Concept], places: Mapping[str, Place], alone: Mapping[str, str]) -> None:
    for concept in concepts.values():
        if concept.label is not None and concept.label not in LABELS:
            raise OntologyError(f"concepts.toml: {concept.name}: label {concept.label!r} is none of the 14")
        if concept.sides not in ("shared", "own", "none"):
            raise OntologyError(f"concepts.toml: {concept.name}: sides {concept.sides!r}")
        for parent in concept.parents:
            if parent not in concepts:
                raise OntologyError(f"concepts.toml: {concept.name}: unknown parent {parent!r}")
        if concept.place is not None and concept.place not in places:
            raise OntologyError(f"concepts.toml: {concept.name}: unknown place {concept.place!r}")
    for place in places.values():
        for state, claims in place.claims.items():
            for claim in claims:
                if claim.lstrip("-?") not in concepts:
                    raise OntologyError(
                        f"places.toml: {place.name}: {state} claims unknown concept {claim!r}"
                    )
    for state, name in alone.items():
        if name not in concepts:
            raise OntologyError(f"places.toml: alone.{state}: unknown concept {name!r}")


@cache
def load() -> Ontology:
    """The ontology, read and checked once a process. Raises OntologyError where the files contradict
    themselves."""
    raw_concepts, raw_places, raw_cues = _read("concepts.toml"), _read("places.toml"), _read("cues.toml")
    concepts = {
        name: Concept(
            name,
            table.get("label"),
            tuple(table.get("parents", ())),
            table.get("place"),
            table.get("sides", "shared"),
            table.get("made", False) or "support devices" in table.get("parents", ()),
        )
        for name, table in raw_concepts.items()
    }
    states = raw_places["states"]
    places = {
        name: Place(
            name,
            table.get("same", name),
            table.get("side"),
            table.get("within", table.get("same")),
            {
                state: tuple(claims)
                for state in states
                if (claims := _claims(raw_places["places"], name, state))
            },
        )
        for name, table in raw_places["places"].items()
    }
    _check(concepts, places, raw_places["alone"])
    ancestors = _closure({name: concept.parents for name, concept in concepts.items()})
    descendants = {name: frozenset(low for low in concepts if name in ancestors[low]) for name in concepts}
    trie = _trie(_entries(raw_concepts, raw_places, raw_cues))
    return Ontology(concepts, places, raw_places["alone"], trie, ancestors, descendants)
