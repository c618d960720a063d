"""Modifiers: which mention a side, degree, change or region belongs to.

Rule for a modifier between two mentions: up to a separator it belongs to the mention before, after it to the
one behind; with no separator, one that a preposition or verb introduces belongs to the mention before
("opacity in the left base"), a bare one to the mention behind ("opacity, mild left effusion"). In lists, a
side and a region are then shared ("left effusion and atelectasis").
"""

from __future__ import annotations

from itertools import pairwise

from chestx_jax.radiology.mentions import SEPARATORS, Item, Mention
from chestx_jax.radiology.ontology import Ontology

_MODIFIERS = frozenset({"side", "severity", "change", "place"})
_APART = SEPARATORS | {"stops", "negate_before", "links", "link_hedge", "hedge", "unlikely"}
_TIES = SEPARATORS | {"links", "link_hedge", "hedge", "severity", "change", "unlikely"}
_DEGREES = {"mild": 1, "moderate": 2, "severe": 3}


def attach(items: list[Item], words: list[str], mentions: list[Mention], ontology: Ontology) -> None:
    """Fills ``side``, ``severity``, ``change`` and ``place`` of every mention of a sentence."""
    if not mentions:
        return
    composed = [mention for mention in mentions if mention.composed]
    for k, item in enumerate(items):
        if item[0] in _MODIFIERS and not (
            item[0] == "place" and any(_is_place(item, mention) for mention in composed)
        ):
            for mention, late in _owners(items, words, mentions, k):
                _give(mention, item, late, ontology)
    for mention in composed:
        mention.side = mention.side or ontology.places[mention.place].side  # type: ignore[index]
    if len(mentions) > 1 and any(mention.side for mention in mentions):
        _share(items, mentions, ontology)


def _is_place(item: Item, mention: Mention) -> bool:
    return item[1] == mention.place and mention.first <= item[2] and item[3] <= mention.last


def _owners(
    items: list[Item], words: list[str], mentions: list[Mention], k: int
) -> list[tuple[Mention, bool]]:
    _, _, i, j = items[k]
    within = [m for m in mentions if m.first <= i and j <= m.last]
    if within:
        return [(m, False) for m in within[-1:]]
    before = next((m for m in reversed(mentions) if m.last <= i), None)
    after = next((m for m in mentions if m.first >= j), None)
    if before is None or after is None:
        if before is not None:
            strong = any(
                items[m][0] == "stops" and words[items[m][2]] in ("but", ";") for m in range(before.at + 1, k)
            )
            return [] if strong else [(m, True) for m in mentions if m.last == before.last]
        return [(m, False) for m in mentions if after is not None and m.first == after.first]
    gap = [m for m in range(len(items)) if before.last <= items[m][2] and items[m][3] <= after.first]
    apart = [m for m in gap if items[m][0] in _APART]
    left = [m for m in apart if m < k]
    right = [m for m in apart if m > k]
    start = left[-1] if left else gap[0] - 1
    introduced = (
        any(items[m][0] in ("prepositions", "verbs") for m in range(start + 1, k)) or "than" in words[i:j]
    )
    if (right and not left) or (introduced and bool(left) == bool(right)):
        return [(m, True) for m in mentions if m.last == before.last]
    return [(m, False) for m in mentions if m.first == after.first]


def _give(mention: Mention, item: Item, late: bool, ontology: Ontology) -> None:
    kind, value = item[0], item[1]
    if kind == "side":
        mention.late = mention.late or late
        mention.side = value if mention.side in (None, value) else "bilateral"
    elif kind == "severity":
        if mention.severity is None or _DEGREES[value] > _DEGREES[mention.severity]:
            mention.severity = value
    elif kind == "change":
        mention.change = mention.change or value
    elif not mention.composed:
        place = ontology.places[value]
        if mention.place is None or place.within == mention.place:
            mention.place = value
        if place.side is not None:
            mention.late = mention.late or late
            mention.side = place.side if mention.side in (None, place.side) else "bilateral"


def _shares(mention: Mention, ontology: Ontology) -> bool:
    return not mention.composed and all(
        ontology.concepts[name].sides == "shared" for name, _ in mention.claims
    )


def _share(items: list[Item], mentions: list[Mention], ontology: Ontology) -> None:
    for one, two in pairwise(mentions):
        if two.side is None and _shares(two, ontology) and _tied(items, one, two):
            two.side, two.late = one.side, False
            if two.place is None and _default(one, ontology) == _default(two, ontology):
                two.place = one.place
    for one, two in reversed(list(pairwise(mentions))):
        if one.side is None and two.late and _shares(one, ontology) and _tied(items, one, two):
            one.side, one.late = two.side, True
            if one.place is None and _default(one, ontology) == _default(two, ontology):
                one.place = two.place


def _default(mention: Mention, ontology: Ontology) -> str | None:
    return ontology.concepts[mention.claims[0][0]].place


def _tied(items: list[Item], one: Mention, two: Mention) -> bool:
    """Whether two neighbours stand in one list or are tied by "consistent with" and the like."""
    between = {items[m][0] for m in range(len(items)) if one.last <= items[m][2] and items[m][3] <= two.first}
    return bool(between & (SEPARATORS | {"links", "link_hedge", "hedge"})) and between <= _TIES | {
        "side",
        "place",
        "prepositions",
    }
