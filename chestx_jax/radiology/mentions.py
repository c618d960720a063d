"""Words to mentions: one pass over the token trie, then places and their states joined to claims.

``scan`` turns a sentence into items (kind, value, first token, token after the last). ``compose`` turns items
into mentions: concept phrases as they are, and a place with a state, in either order, through the claims
table of ``places.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chestx_jax.radiology.ontology import Ontology

Item = tuple[str, Any, int, int]
SEPARATORS = frozenset({"comma", "and", "or"})
_LOOSE = frozenset(
    {"side", "severity", "change", "hedge", "negate_before", "passes", "historical_before", "remainder"}
)


@dataclass(slots=True)
class Mention:
    """A place in the sentence that claims something; context and attributes fill in the second half."""

    claims: tuple[tuple[str, str], ...]
    """(concept, mark): mark "" present, "-" absent, "?" present but uncertain"""
    first: int
    last: int
    at: int
    """index of the item that scopes act on (the state, for composed mentions)"""
    place: str | None = None
    composed: bool = False
    negated: bool = False
    hedged: bool = False
    imagined: bool = False
    past: bool = False
    side: str | None = None
    severity: str | None = None
    change: str | None = None
    late: bool = False
    """whether the side was said after the mention"""


def scan(words: list[str], ontology: Ontology) -> list[Item]:
    """Longest matches from left to right."""
    items: list[Item] = []
    root = ontology.trie.next
    n = len(words)
    i = 0
    while i < n:
        node = root.get(words[i])
        if node is None:
            i += 1
            continue
        entry, last, j = node.entry, i + 1, i + 1
        while j < n:
            node = node.next.get(words[j])
            if node is None:
                break
            j += 1
            if node.entry is not None:
                entry, last = node.entry, j
        if entry is None:
            i += 1
            continue
        items.append((entry[0], entry[1], i, last))
        i = last
    return items


def compose(items: list[Item], words: list[str], ontology: Ontology) -> list[Mention]:
    """The mentions of a sentence, in the order of their first token."""
    mentions: list[Mention] = []
    taken: dict[int, list[int]] = {}
    for k, (kind, value, i, j) in enumerate(items):
        if kind == "concept":
            mentions.append(Mention(value, i, j, k))
        elif kind == "state":
            taken[k] = places = _places(items, words, k, taken, ontology)
            for p in places:
                name, low, high = items[p][1], items[p][2], items[p][3]
                claims = tuple(
                    (claim.lstrip("-?"), _mark(claim)) for claim in ontology.places[name].claims[value]
                )
                mentions.append(Mention(claims, min(i, low), max(j, high), k, name, composed=True))
            if not places and value in ontology.alone:
                mentions.append(Mention(((ontology.alone[value], ""),), i, j, k))
    mentions.sort(key=lambda mention: (mention.first, mention.last))
    return mentions


def _mark(claim: str) -> str:
    return claim[0] if claim[0] in "-?" else ""


def _places(
    items: list[Item], words: list[str], k: int, taken: dict[int, list[int]], ontology: Ontology
) -> list[int]:
    """The places that the state at item ``k`` is said of: the subject before it, the object after it, or
    those of the state it is coordinated with ("the aorta is tortuous and calcified")."""
    state = items[k][1]
    return (
        [p for p in _before(items, words, k) if state in ontology.places[items[p][1]].claims]
        or [p for p in _after(items, k) if state in ontology.places[items[p][1]].claims]
        or [p for p in _coordinated(items, k, taken) if state in ontology.places[items[p][1]].claims]
    )


def _located(items: list[Item], p: int) -> bool:
    """Whether the place at item ``p`` only says where ("in the left base")."""
    p -= 1
    while p >= 0 and items[p][0] in ("side", "severity"):
        p -= 1
    return p >= 0 and items[p][0] == "prepositions"


def _before(items: list[Item], words: list[str], k: int) -> list[int]:
    found: list[int] = []
    crossed = False
    for m in range(k - 1, -1, -1):
        kind = items[m][0]
        if kind == "place":
            if _located(items, m):
                if crossed:
                    break
            else:
                found.append(m)
        elif kind in SEPARATORS:
            if not found:
                break
            crossed = True
        elif kind == "verbs":
            if found:
                break
        elif kind == "stops":
            if found or words[items[m][2]] not in (":", "which"):
                break
        elif kind not in _LOOSE and kind != "prepositions":
            break
    return found


def _after(items: list[Item], k: int) -> list[int]:
    found: list[int] = []
    end = items[k][3]
    for m in range(k + 1, len(items)):
        kind, _, i, j = items[m]
        if kind == "place":
            following = items[m + 1][0] if m + 1 < len(items) else ""
            if i - end > 4 or (found and following in ("verbs", "state", "stops")):
                break
            found.append(m)
            end = j
        elif kind in SEPARATORS:
            if not found:
                break
        elif kind not in ("side", "severity", "change") and (found or kind != "prepositions"):
            break
    return found


def _coordinated(items: list[Item], k: int, taken: dict[int, list[int]]) -> list[int]:
    for m in range(k - 1, -1, -1):
        if items[m][0] == "state":
            return taken[m]
        if items[m][0] not in SEPARATORS and items[m][0] not in _LOOSE and items[m][0] != "verbs":
            break
    return []
