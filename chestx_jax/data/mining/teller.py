"""Tells facts as sentences, remembering what was said."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from chestx_jax.data.mining.facts import Fact, Facts
from chestx_jax.data.mining.wording import absent, listed, phrase, present, words_of
from chestx_jax.radiology import Finding, extract_findings, load

_LISTED = 4
"""Findings in one enumeration, at most."""


@dataclass
class Teller:
    """The sentences of one sample; each finding is told once.

    Attributes:
      rng: the sample's own generator.
      said: (concept, polarity, laterality, place) of what was told.
      here: the part of it that was told in this step.
    """

    facts: Facts
    rng: random.Random
    said: set[tuple] = field(default_factory=set)
    here: set[tuple] = field(default_factory=set)

    def begin(self) -> None:
        """Starts a step: what was told before may be recalled in it, once."""
        self.here.clear()

    def tell(self, facts: Iterable[Fact]) -> list[str]:
        """Sentences that affirm facts: those that are news one by one, those of earlier steps in one reminder,
        those of this step not again."""
        facts = [fact for fact in facts if _key(fact.finding) not in self.here]
        known = [fact for fact in facts if not self._news(fact.finding)]
        sentences = [self.affirm(fact) for fact in facts if fact not in known]
        if known:
            for fact in known:
                self._note(fact.finding)
            again = self.rng.choice(("Again I see {}.", "As before, I see {}."))
            sentences.append(again.format(listed([_full(fact) for fact in known])))
        return sentences

    def affirm(self, fact: Fact) -> str:
        """A sentence that affirms a fact."""
        self._note(fact.finding)
        return present(fact.finding, self.rng, fact.many)

    def deny(self, finding: Finding) -> list[str]:
        """A sentence that denies a finding; a reminder where an earlier step did, none where this one does. Where
        something wider is denied ("the lungs are clear"), it may be told as well, once."""
        finding = replace(finding, polarity="absent", certainty="definite", severity=None, change=None)
        if finding.laterality == "bilateral":  # "no effusion on both sides" is said as "no effusion"
            finding = replace(finding, laterality=None, anatomy=load().concepts[finding.concept].place)
        if _key(finding) in self.here:
            return []
        if not self._note(finding):
            name = words_of(finding.concept)
            be = "are" if name.kind == "plural" else "is"
            again = self.rng.choice(("Again no {} {} seen.", "As before, no {} {} seen."))
            return [again.format(name.noun, be)]
        plain = absent(finding, self.rng)
        wider = next((one for one in self.facts.denied if self._widens(one, finding)), None)
        if wider is None:
            return [plain]
        self._note(wider)
        joined = f"{absent(wider, self.rng)[:-1]}, and {lower(plain)}"
        return [joined if faithful(joined, (wider, finding)) else plain]

    def rest(self, findings: Sequence[Fact], also: bool = False) -> list[str]:
        """The facts of `findings` that were not told, in enumerations and sentences; `also`: after others."""
        left = [fact for fact in findings if self._news(fact.finding)]
        plain = [fact for fact in left if not _stated(fact)]
        sentences = [self.affirm(fact) for fact in left if _stated(fact)]
        for start in range(0, len(plain), _LISTED):
            group = plain[start : start + _LISTED]
            lead = self.rng.choice(("I also see", "Besides, I see", "I further see") if also else ("I see",))
            text = f"{lead} {listed([_full(fact) for fact in group])}."
            if len(group) > 1 and faithful(text, [fact.finding for fact in group]):
                for fact in group:
                    self._note(fact.finding)
                sentences.append(text)
            else:
                sentences += [self.affirm(fact) for fact in group]
        return sentences

    def denials(self, findings: Iterable[Finding]) -> list[str]:
        """Denials not told yet: what has a sentence of its own ("the heart is normal in size") one by one, the
        others as "No a, b or c is seen."."""
        left = [one for one in findings if self._news(one) and self.facts.can_deny(one)]
        own = [one for one in left if words_of(one.concept).absent and one.laterality in (None, "bilateral")]
        plain = [one for one in left if one not in own]
        sentences = [absent(one, self.rng) for one in own if self._note(one)]
        for start in range(0, len(plain), _LISTED):
            group = plain[start : start + _LISTED]
            be = "are" if words_of(group[-1].concept).kind == "plural" else "is"
            text = f"No {listed([words_of(one.concept).noun for one in group], 'or')} {be} seen."
            bare = [replace(one, laterality=None) for one in group]
            if len(group) > 1 and faithful(text, bare) and all(self.facts.can_deny(one) for one in bare):
                for one in group:
                    self._note(one)
                sentences.append(text)
            else:
                sentences += [absent(one, self.rng) for one in group if self._note(one)]
        return sentences

    def _note(self, finding: Finding) -> bool:
        """Marks as told; whether it was news."""
        news = self._news(finding)
        self.said.add(_key(finding))
        self.here.add(_key(finding))
        return news

    def _news(self, finding: Finding) -> bool:
        return _key(finding) not in self.said

    def _widens(self, one: Finding, finding: Finding) -> bool:
        """Whether `one` is a wider denial, not told yet, of just this place."""
        ancestors = load().ancestors[finding.concept]
        return one.concept != finding.concept and one.concept in ancestors and self._news(one)


def _key(finding: Finding) -> tuple:
    return finding.concept, finding.polarity, finding.laterality, finding.anatomy


def _stated(fact: Fact) -> bool:
    """Whether it is told by a sentence of its own ("the heart is enlarged") or doubted."""
    return bool(words_of(fact.finding.concept).present) or fact.finding.certainty == "uncertain"


def _full(fact: Fact) -> str:
    return phrase(fact.finding, fact.many).full


def lower(sentence: str) -> str:
    """The sentence with its first letter in lower case, but for "I"."""
    return sentence if sentence.startswith("I ") else sentence[:1].lower() + sentence[1:]


def faithful(sentence: str, findings: Sequence[Finding]) -> bool:
    """Whether a sentence, read by the findings room, claims all of `findings` on their sides and no other
    concept."""
    heard = [one for one in extract_findings(sentence) if one.asserted]
    said = {(one.concept, one.polarity, one.laterality) for one in heard}
    wanted = {(one.concept, one.polarity, one.laterality) for one in findings}
    related = frozenset().union(*(load().ancestors[one.concept] for one in findings))
    return wanted <= said and all(one.concept in related for one in heard)


def silent(sentence: str) -> bool:
    """Whether a sentence asserts nothing: an announcement."""
    return not any(one.asserted for one in extract_findings(sentence))


def claims(sentence: str) -> set[tuple]:
    """What a sentence asserts, without the places of the words."""
    heard = [one for one in extract_findings(sentence) if one.asserted]
    return {(one.concept, one.polarity, one.certainty, one.laterality, one.anatomy) for one in heard}
