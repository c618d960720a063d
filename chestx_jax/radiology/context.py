"""Scopes: which mentions a text denies, doubts, imagines or remembers.

One pass from left to right in the manner of NegEx (Chapman et al. 2001): a cue opens a scope, stops, commas
and "and" close it where a new statement begins; cues that follow their mention act backwards over the list
they close.
"""

from __future__ import annotations

from itertools import pairwise

from chestx_jax.radiology.mentions import SEPARATORS, Item, Mention

# stops that do not end a search or a list of candidates
_WEAK = frozenset({"with", "which", "where", "there"})
# "we evaluate several potential issues: ...": the list is part of the search
_ANNOUNCED = frozenset(
    {"issues", "abnormalities", "conditions", "findings", "possibilities", "options", "diagnoses"}
)
_LISTED = frozenset(
    {"side", "severity", "change", "place", "prepositions", "comma", "and", "or", "hedge", "state"}
)
_QUIET = frozenset(
    {"side", "severity", "change", "place", "verbs", "prepositions", "seen", "links", "passes"}
)
_CLOSERS = frozenset(
    {"negate_before", "negate_after", "negate", "imagined_before", "imagined_clause", "hedge_after"}
)


class Scopes:
    """The open scopes while a sentence is read; ``None`` or the index of the item that opened it."""

    __slots__ = ("hedge", "imagined", "items", "mentions", "negation", "past", "remainder", "words")

    def __init__(self, items: list[Item], words: list[str], mentions: list[Mention]) -> None:
        self.items, self.words, self.mentions = items, words, mentions
        self.negation: int | None = None
        self.hedge: int | None = None
        self.imagined: int | None = None
        self.past = False
        self.remainder = False


def judge(items: list[Item], words: list[str], mentions: list[Mention]) -> None:
    """Sets ``negated``, ``hedged``, ``imagined`` and ``past`` of every mention of a sentence."""
    scopes = Scopes(items, words, mentions)
    at: dict[int, list[Mention]] = {}
    for mention in mentions:
        at.setdefault(mention.at, []).append(mention)
    recent: list[Mention] = []
    clause: list[Mention] = []
    definition = False
    for k, (kind, value, i, _) in enumerate(items):
        if kind in _QUIET:
            continue
        if k in at:
            for mention in at[k]:
                _open_scopes(scopes, mention)
            recent += at[k]
            clause += at[k]
        elif kind == "stops":
            if definition or words[i] != "with":
                _imagine(clause if definition else [])
                clause, definition = [], False
            scopes.negation = scopes.hedge = None
            scopes.past = False
            if words[i] not in _WEAK and not (words[i] == ":" and words[i - 1] in _ANNOUNCED):
                scopes.imagined = None
                scopes.remainder = False
                recent = []
        elif kind in SEPARATORS:
            _separator(scopes, k, kind)
        elif kind == "state":
            if value == "normal" and recent and not recent[-1].composed and _bare(items, recent[-1].at, k):
                recent[-1].negated = True  # "scarring is within normal limits"
        elif kind == "imagined_clause":
            definition = definition or scopes.negation is None
        else:
            _cue(scopes, k, kind, recent)
    _imagine(clause if definition else [])
    if "or" in words:
        _alternatives(items, mentions)
    if ":" in words:
        _topics(items, words, mentions)


def _bare(items: list[Item], one: int, two: int) -> bool:
    """Whether nothing but a verb stands between two items."""
    return two > one + 1 and all(items[m][0] == "verbs" for m in range(one + 1, two))


def _open_scopes(scopes: Scopes, mention: Mention) -> None:
    negation, imagined = scopes.negation, scopes.imagined
    if mention.composed and mention.claims[0][1] == "-":
        negation = (
            negation
            if negation == mention.at - 1 and scopes.words[scopes.items[negation][2]] == "not"
            else None
        )
    mention.negated = negation is not None
    if mention.negated and _resolving(scopes, scopes.items[negation]):  # type: ignore[index]
        mention.change = "better"
    mention.imagined = imagined is not None and (negation is None or imagined < negation)
    denied = mention.negated or mention.claims[0][1] == "-"
    mention.hedged = scopes.hedge is not None or (scopes.remainder and denied)
    mention.past = scopes.past


def _resolving(scopes: Scopes, item: Item) -> bool:
    return any(word.startswith("resol") or word == "cleared" for word in scopes.words[item[2] : item[3]])


def _imagine(clause: list[Mention]) -> None:
    for mention in clause:
        mention.imagined = mention.imagined or not mention.negated


def _separator(scopes: Scopes, k: int, kind: str) -> None:
    if kind == "comma":
        scopes.past = False
    if kind == "or":
        return
    if scopes.negation is None and scopes.hedge is None and scopes.imagined is None:
        return
    statement, described = _opens(scopes, k)
    if statement:
        scopes.negation = scopes.hedge = scopes.imagined = None
    elif described:
        scopes.negation = scopes.hedge = None


def _opens(scopes: Scopes, k: int) -> tuple[bool, bool]:
    """Whether a new statement begins after the separator at item ``k``: it has its own verb, or (second) its
    mention has its own degree or change and no "or" is to come that would make it part of a list ("no
    effusion, stable cardiomegaly")."""
    items, words = scopes.items, scopes.words
    described = False
    for m in range(k + 1, len(items)):
        kind, i = items[m][0], items[m][2]
        if kind == "comma" or (kind in ("and", "or") and m > k + 1):
            break
        if kind == "stops" and not (m == k + 1 and words[i] == "which"):
            break
        if kind in ("verbs", "state"):
            return True, True
        if kind in _CLOSERS:
            return False, False
        if kind in ("change", "severity"):
            described = True
    later_or = False
    for m in range(k + 1, len(items)):
        if items[m][0] == "stops":
            break
        later_or = later_or or items[m][0] == "or"
    return False, described and not later_or


def _follows(scopes: Scopes, k: int, *, breaks: frozenset[str]) -> bool:
    """Whether a mention stands after item ``k`` before its segment ends."""
    for m in range(k + 1, len(scopes.items)):
        kind = scopes.items[m][0]
        if kind in ("concept", "state"):
            return True
        if kind in breaks:
            return False
    return False


_SEGMENT = frozenset({"comma", "and", "stops", "negate_after", "hedge_after"})
_AFTER_VERB = frozenset({"stops", "negate_after", "hedge_after"})
_DOUBTING_VERBS = frozenset(
    {"may", "might", "could", "suggest", "suggests", "suggesting", "which", "that"}
)  # never said afterwards
_TIGHT = _SEGMENT | {"or", "verbs", "prepositions", "seen"}


def _cue(scopes: Scopes, k: int, kind: str, recent: list[Mention]) -> None:
    if kind == "negate_before" or (kind == "negate" and _follows(scopes, k, breaks=_TIGHT)):
        scopes.negation, scopes.hedge = k, None
    elif kind in ("negate_after", "negate"):
        for mention in _chain(scopes, k, recent):
            mention.negated, mention.past = (
                True,
                False,
            )  # "the previous effusion is not seen" is about this film
            if _resolving(scopes, scopes.items[k]):
                mention.change = "better"
    elif kind in ("hedge", "link_hedge"):
        if scopes.negation is None:
            word = scopes.words[scopes.items[k][2]]
            contrast = word in ("versus", "vs")
            forward = _follows(scopes, k, breaks=_AFTER_VERB if word in _DOUBTING_VERBS else _SEGMENT)
            if forward:
                scopes.hedge = k
            if contrast or not (forward or kind == "link_hedge"):
                for mention in _chain(scopes, k, recent):
                    mention.hedged = True
    elif kind == "hedge_after":
        for mention in _chain(scopes, k, recent):
            mention.hedged, mention.negated = True, False
    elif kind == "unlikely":
        if _fresh(scopes, k, recent):
            for mention in _chain(scopes, k, recent):
                mention.hedged = mention.negated = True
        else:
            scopes.negation = scopes.hedge = k
    elif kind == "imagined_before":
        if scopes.negation is None:
            scopes.imagined = k
    elif kind == "historical_before":
        scopes.past = True
    elif kind == "remainder":
        scopes.remainder = True


def _fresh(scopes: Scopes, k: int, recent: list[Mention]) -> bool:
    """Whether a mention stands between the last separator and item ``k``."""
    if not recent:
        return False
    return not any(scopes.items[m][0] in SEPARATORS for m in range(recent[-1].at + 1, k))


def _chain(scopes: Scopes, k: int, recent: list[Mention]) -> list[Mention]:
    """The list of plain mentions that ends before item ``k``: "effusion, pneumothorax and edema [are not
    seen]". A mention that was introduced by its own verb ("there is cardiomegaly, and effusion ...") is not
    part of it."""
    chain: list[Mention] = []
    for mention in reversed(recent):
        if mention.composed and mention.claims[0][1] == "-":
            break
        if chain:
            between = [scopes.items[m][0] for m in range(mention.at + 1, chain[-1].at)]
            introduced = any(scopes.items[m][0] == "verbs" for m in range(mention.at))
            if (
                introduced
                or not any(kind in SEPARATORS for kind in between)
                or not _LISTED.issuperset(between)
            ):
                break
        chain.append(mention)
        if mention.composed:
            break
    return chain


_SAID = _CLOSERS | {"verbs", "seen", "hedge", "unlikely"}


def _alternatives(items: list[Item], mentions: list[Mention]) -> None:
    """ "Atelectasis or scarring", asserted, leaves both uncertain."""
    for one, two in pairwise(mentions):
        if one.composed or two.composed or one.negated or two.negated or one.imagined or two.imagined:
            continue
        between = [items[m][0] for m in range(one.at + 1, two.at)]
        if "or" in between and _LISTED.issuperset(between):
            one.hedged = two.hedged = True


def _topics(items: list[Item], words: list[str], mentions: list[Mention]) -> None:
    """ "Pneumothorax: ..." names a topic. What follows decides; when it mentions findings of its own, the
    topic claims nothing."""
    colon = next((k for k, item in enumerate(items) if item[0] == "stops" and words[item[2]] == ":"), None)
    if colon is None:
        return
    if _restates(items[colon:], words[: items[colon][2]]):
        _imagine(mentions)
        return
    heading = [mention for mention in mentions if mention.last <= items[colon][2]]
    if not heading or any(m.composed and m.claims[0][1] == "-" for m in heading):
        return
    if any(items[k][0] in ("verbs", "negate_before", "seen") for k in range(colon)):
        return
    rest = {item[0] for item in items[colon + 1 :]}
    said = set(words[items[colon][3] :])
    own = len(heading) < len(mentions)
    for mention in heading:
        if not own and rest & {"hedge", "hedge_after"}:
            mention.hedged = True
        elif not own and rest & {"negate_before", "negate_after", "negate"}:
            mention.negated = True
        elif own or not (
            said & {"yes", "present", "positive"} or rest & {"side", "severity", "change", "seen"}
        ):
            mention.imagined = True


def _restates(rest: list[Item], before: list[str]) -> bool:
    """ "Option A: nodule in the left lung" repeats the question; with a verb or a judgment it is a statement."""
    named = [word for word in before if word.isalpha()]
    return named[:-1] == ["option"] and _SAID.isdisjoint(item[0] for item in rest)
