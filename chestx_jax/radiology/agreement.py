"""Agreement between what two texts claim, and of a text with itself.

Texts are compared by their assertions: asserted findings (definite or uncertain), each (concept, polarity,
laterality) once. How sure a text is, where in the lung, how severe and how changed is left out: reports and
models differ in that too much to score it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from chestx_jax.radiology.findings import Finding
from chestx_jax.radiology.ontology import load

CREDIT = {"same": 1.0, "side": 0.75, "kin": 0.5}
"""How much a matched pair is worth, by rule; the order is the order of preference."""


@dataclass(frozen=True)
class Match:
    """A predicted and a gold finding that say the same thing, by ``rule``:

    same: concept, polarity and laterality are equal
    side: concept and polarity are equal; one text names no side, or both sides where the other names one
    kin:  same polarity, one concept implies the other ("consolidation" and "lung opacity"), sides not opposed
    """

    pred: Finding
    gold: Finding
    rule: str

    @property
    def credit(self) -> float:
        return CREDIT[self.rule]


@dataclass(frozen=True)
class Agreement:
    """``pairs`` one to one; ``pred_only`` and ``gold_only`` what is left. Of ``pred_only``, ``entailed``
    follows from the gold findings (absent "edema" from absent "lung opacity", present "lung opacity" from a
    present "edema" that is already matched), and the first of each of ``conflicts`` contradicts the second, a
    gold finding."""

    pairs: tuple[Match, ...]
    pred_only: tuple[Finding, ...]
    gold_only: tuple[Finding, ...]
    entailed: tuple[Finding, ...]
    conflicts: tuple[tuple[Finding, Finding], ...]

    @property
    def credit(self) -> float:
        return sum(pair.credit for pair in self.pairs)

    @property
    def precision(self) -> float:
        """Credit per predicted assertion; 0 without any."""
        total = len(self.pairs) + len(self.pred_only)
        return self.credit / total if total else 0.0

    @property
    def recall(self) -> float:
        """Credit per gold assertion; 0 without any."""
        total = len(self.pairs) + len(self.gold_only)
        return self.credit / total if total else 0.0

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def assertions(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each asserted (concept, polarity, laterality) once, at its first definite mention, in order of the
    text.

    Left and right of one concept become bilateral; a mention without a side is dropped where the same text
    names one ("a right effusion ... the effusion is small").
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.asserted:
            groups.setdefault((finding.concept, finding.polarity), []).append(finding)
    kept = []
    for group in groups.values():
        sides = {finding.laterality for finding in group if finding.laterality}
        side = sides.pop() if len(sides) == 1 else "bilateral" if sides else None
        pool = [finding for finding in group if finding.laterality or side is None]
        first = next((finding for finding in pool if finding.certainty == "definite"), pool[0])
        kept.append(replace(first, laterality=side))
    return tuple(sorted(kept, key=lambda finding: (finding.start, finding.end, finding.concept)))


def match_findings(pred: Iterable[Finding], gold: Iterable[Finding]) -> Agreement:
    """Pairs the assertions of ``pred`` and ``gold`` one to one, best rule first, then in the order of the
    texts."""
    preds, golds = list(assertions(pred)), list(assertions(gold))
    open_preds, open_golds = dict(enumerate(preds)), dict(enumerate(golds))
    pairs = []
    for rule in CREDIT:
        for i, one in list(open_preds.items()):
            for j, two in list(open_golds.items()):
                if _rule(one, two) == rule:
                    pairs.append(Match(one, two, rule))
                    del open_preds[i], open_golds[j]
                    break
    left = tuple(open_preds.values())
    entailed = tuple(one for one in left if any(_entails(two, one) for two in golds))
    conflicts = tuple((one, two) for one in left for two in golds if _conflict(one, two))
    return Agreement(tuple(pairs), left, tuple(open_golds.values()), entailed, conflicts)


def relation(pred: Finding, gold: Finding) -> str | None:
    """What one asserted finding is to another, as `match_findings` of the two: a rule of `CREDIT`, "entailed",
    "conflict" or None."""
    if rule := _rule(pred, gold):
        return rule
    if _entails(gold, pred):
        return "entailed"
    return "conflict" if _conflict(pred, gold) else None


def contradictions(findings: Iterable[Finding]) -> list[tuple[Finding, Finding]]:
    """(present, absent) pairs of one concept that a text cannot mean at once, each pair of assertions once.

    Both must be definite, and the denial must cover the claim: same side or no side denied, a region that
    contains the claimed one. A denial of a degree or of novelty ("no large effusion", "no new opacity")
    denies only that.
    """
    asserted = [finding for finding in findings if finding.certainty == "definite"]
    absent: dict[str, list[Finding]] = {}
    for finding in asserted:
        if finding.polarity == "absent":
            absent.setdefault(finding.concept, []).append(finding)
    pairs: dict[tuple, tuple[Finding, Finding]] = {}
    for one in asserted:
        if one.polarity == "present":
            for two in absent.get(one.concept, ()):
                if _covers(two, one):
                    pairs.setdefault((one.concept, one.laterality, two.laterality), (one, two))
    return list(pairs.values())


def _related(one: str, two: str) -> bool:
    ancestors = load().ancestors
    return two in ancestors[one] or one in ancestors[two]


def _opposed(one: Finding, two: Finding) -> bool:
    return {one.laterality, two.laterality} == {"left", "right"}


def _rule(one: Finding, two: Finding) -> str | None:
    if one.polarity != two.polarity or _opposed(one, two):
        return None
    if one.concept == two.concept:
        return "same" if one.laterality == two.laterality else "side"
    return "kin" if _related(one.concept, two.concept) else None


def _entails(given: Finding, claim: Finding) -> bool:
    if given.polarity != claim.polarity or _opposed(given, claim):
        return False
    ontology = load()
    if given.polarity == "absent":
        covered = given.laterality in (None, "bilateral", claim.laterality)
        return covered and claim.concept in ontology.descendants[given.concept]
    return claim.laterality in (None, given.laterality) and claim.concept in ontology.ancestors[given.concept]


def _conflict(pred: Finding, gold: Finding) -> bool:
    """Opposite polarity, or opposite side, of the same concept. Implication runs only one way: a present
    child against an absent parent is a conflict, an absent child against a present parent is none."""
    if pred.polarity == gold.polarity:
        return pred.concept == gold.concept and pred.polarity == "present" and _opposed(pred, gold)
    present, absent = (pred, gold) if pred.polarity == "present" else (gold, pred)
    return absent.concept in load().ancestors[present.concept] and _covers(absent, present)


def _covers(absent: Finding, present: Finding) -> bool:
    """Whether a denial is about the claimed side, region and degree."""
    if absent.severity is not None and absent.severity != present.severity:
        return False
    if absent.change == "new" and present.change != "new":
        return False
    if absent.laterality not in (None, "bilateral") and present.laterality not in (
        "bilateral",
        absent.laterality,
    ):
        return False
    return absent.anatomy is None or present.anatomy is None or _contains(absent.anatomy, present.anatomy)


def _contains(large: str, small: str | None) -> bool:
    places = load().places
    while small is not None:
        if small == large:
            return True
        small = places[small].within
    return False
