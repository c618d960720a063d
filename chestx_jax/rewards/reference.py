"""What a prediction is held against: the gold reasoning, the report and the question, read once a sample.

Rests on `radiology` and `data` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from chestx_jax.data.chat import label_set, predicted_option
from chestx_jax.data.schema import LETTERS, Sample
from chestx_jax.radiology import Finding, extract_findings, load, match_findings, relation
from chestx_jax.rewards.reading import Reading, read_steps

CREDIT = {"same": 1.0, "entailed": 1.0, "side": 0.75, "kin": 0.5}
"""What a claim earns that a source bears out, by rule: `same`, `side` and `kin` as in `radiology.Match`;
`entailed`: it follows ("no edema" from "no lung opacity", "lung opacity" from "pneumonia")."""
_SURE = 0.75
"""From this credit on, a source's support outweighs a conflict with the other source."""


class MissingReference(ValueError):
    """A sample without what RadRScore needs; the message names the sample and its field."""


@dataclass(frozen=True)
class Verdict:
    """What the sources say of one claim.

    Attributes:
      verdict: supported, contradicted or unmentioned.
      credit: 0 to 1, of `CREDIT`; above 0 only where supported.
      source: gold, report or question; None where unmentioned. The question supports the denial of a finding
        it offers, when neither gold nor report mentions that finding.
      rule: of `CREDIT`, "conflict", or "hedge" where the text also says the opposite, less firmly or by degree.
      on_topic: see `Reference.on_topic`.
      witness: the finding of the source, with spans into that source's text.
      recalls: (index into `Reference.gold_claims`, credit) of the gold claims that it states.
      effective: see `Reference.effective`.
    """

    verdict: str
    credit: float = 0.0
    source: str | None = None
    rule: str | None = None
    on_topic: bool = False
    witness: Finding | None = None
    recalls: tuple[tuple[int, float], ...] = ()
    effective: bool = False


@dataclass(frozen=True)
class Reference:
    """The gold side of one sample. Build it once: it remembers its verdicts.

    Attributes:
      gold: the gold reasoning; its spans count in "\\n".join(gold_steps).
      report: the report's findings, with spans into the report.
      options: the options' texts, None for an open question.
      answer: the right letter, or the right text of an open question; None leaves the answer out
        of the score.
    """

    gold: Reading
    report: tuple[Finding, ...]
    options: tuple[str, ...] | None
    answer: str | None
    _verdicts: dict[tuple, Verdict] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        gold_steps: Sequence[str],
        report: str,
        options: Sequence[str] | None = None,
        answer: str | None = None,
    ) -> Reference:
        """Reads gold steps, report and options."""
        found = tuple(finding for finding in extract_findings(report) if finding.asserted)
        return cls(read_steps(gold_steps), found, tuple(options) if options is not None else None, answer)

    @classmethod
    def of_sample(cls, sample: Sample) -> Reference:
        """The reference of a sample.

        Raises:
          MissingReference: it has no gold steps or no report.
        """
        for name, value in (("reason_steps", sample.reason_steps), ("report", sample.report)):
            if not value:
                raise MissingReference(f"sample {sample.id!r}: field {name!r} is empty; RadRScore needs it")
        return cls.of(sample.reason_steps, sample.report, sample.options, sample.answer)

    @cached_property
    def gold_claims(self) -> tuple[Finding, ...]:
        """One finding a gold claim on topic, its first mention."""
        first = (group[0].finding for group in self.gold.claims.values())
        return tuple(finding for finding in first if self.on_topic(finding))

    def on_topic(self, claim: Finding) -> bool:
        """Whether a claim belongs to an answer to this question: it affirms something, or it denies what is
        asked about or something wider ("no lung opacity" where a nodule is offered). An open question asks
        about what the gold reasoning treats. Other normals earn nothing, unless the gold reasoning affirms
        nothing at all: then normality is the topic."""
        return claim.polarity == "present" or self._normal or claim.concept in self._related

    def effective(self, claim: Finding) -> bool:
        """Whether a sentence with this claim, if it holds, helps to answer: as `on_topic`, but a denial does
        so only where the question offers a choice."""
        return self.on_topic(claim) and (
            claim.polarity == "present" or self._normal or self.options is not None
        )

    @cached_property
    def _normal(self) -> bool:
        return not any(key[1] == "present" for key in self.gold.claims)

    @cached_property
    def _related(self) -> frozenset[str]:
        ontology = load()
        return frozenset().union(*(ontology.ancestors[name] for name in self.asked))

    @cached_property
    def gold_sentences(self) -> frozenset[str]:
        return frozenset(sentence.words for sentence in self.gold.sentences)

    @cached_property
    def asked(self) -> frozenset[str]:
        """The concepts that the options offer; of an open question, those that the gold reasoning treats."""
        if self.options is None:
            return frozenset(key[0] for key in self.gold.claims)
        return frozenset().union(*self.offered)

    @cached_property
    def offered(self) -> tuple[frozenset[str], ...]:
        """The concepts of each option."""
        return tuple(frozenset(finding.concept for finding in option) for option in self._option_findings)

    @cached_property
    def _option_findings(self) -> tuple[tuple[Finding, ...], ...]:
        return tuple(tuple(extract_findings(option)) for option in self.options or ())

    @cached_property
    def _books(self) -> tuple[tuple[str, Mapping[str, Sequence[Finding]]], ...]:
        """(source, concept -> the source's findings that say something about it)."""
        gold = [mention.finding for group in self.gold.claims.values() for mention in group]
        return (("gold", _index(gold)), ("report", _index(self.report)))

    @cached_property
    def _gold_index(self) -> Mapping[str, Sequence[tuple[int, Finding]]]:
        related = _index(self.gold_claims)
        place = {id(finding): i for i, finding in enumerate(self.gold_claims)}
        return {name: [(place[id(f)], f) for f in findings] for name, findings in related.items()}

    def verdict(self, claim: Finding) -> Verdict:
        """What gold reasoning, report and question say of an asserted finding. Gold first, because what the
        report leaves out counts as normal there."""
        said = (claim.concept, claim.polarity, claim.laterality, claim.severity, claim.anatomy, claim.change)
        known = self._verdicts.get(said)
        if known is None:
            known = replace(self._judge(claim), effective=self.effective(claim))
            self._verdicts[said] = known
        return known

    def _judge(self, claim: Finding) -> Verdict:
        recalls = []
        for i, gold in self._gold_index.get(claim.concept, ()):
            if rule := _rule(gold, claim):
                recalls.append((i, CREDIT[rule]))
        stated = tuple(recalls)
        topic = self.on_topic(claim)
        support = [_support(claim, book.get(claim.concept, ())) for _, book in self._books]
        names = [name for name, _ in self._books]
        for least, conflicts in ((_SURE, False), (0.0, True)):
            for name, (rule, witness) in zip(names, support, strict=True):
                if rule and CREDIT[rule] >= least:
                    return Verdict("supported", CREDIT[rule], name, rule, topic, witness, stated)
            if not conflicts:
                for name, book in self._books:
                    for other in book.get(claim.concept, ()):
                        if relation(claim, other) == "conflict":
                            return Verdict("contradicted", 0.0, name, "conflict", topic, other, stated)
        if claim.polarity == "absent" and claim.concept in self.asked:
            return Verdict("supported", 1.0, "question", "same", True, None, stated)
        return Verdict("unmentioned", on_topic=topic, recalls=stated)

    def chosen(self, answer: str | None) -> str | None:
        """The letter of the option that an answer names; None for none, and for an open question."""
        return predicted_option(answer, self.options) if answer and self.options is not None else None

    def answered(self, answer: str | None) -> tuple[Finding, ...]:
        """The findings of the option that an answer names."""
        letter = self.chosen(answer)
        return self._option_findings[LETTERS.index(letter)] if letter else ()

    def concluded(self, answer: str | None) -> float:
        """How right an answer is: 1 or 0 for a letter or an option's text; for an open question the F1 of the
        findings it names, or 1 for the same labels."""
        if self.answer is None or not answer:
            return 0.0
        if self.options is not None:
            return float(self.chosen(answer) == self.answer)
        if label_set(answer) == label_set(self.answer):
            return 1.0
        return match_findings(extract_findings(answer), extract_findings(self.answer)).f1


def _index(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Concept -> findings of it, of what it implies or of what implies it; equal ones once."""
    ontology = load()
    seen: set[tuple] = set()
    index: dict[str, list[Finding]] = {}
    for one in findings:
        said = (one.concept, one.polarity, one.laterality, one.severity, one.anatomy, one.change)
        if said not in seen:
            seen.add(said)
            for name in ontology.ancestors[one.concept] | ontology.descendants[one.concept]:
                index.setdefault(name, []).append(one)
    return index


def _support(claim: Finding, given: Iterable[Finding]) -> tuple[str | None, Finding | None]:
    """The best rule by which one of `given` bears out the claim, and that finding."""
    best: tuple[str | None, Finding | None] = (None, None)
    for other in given:
        rule = _rule(claim, other)
        if rule and (best[0] is None or CREDIT[rule] > CREDIT[best[0]]):
            best = (rule, other)
    return best


def _rule(claim: Finding, given: Finding) -> str | None:
    rule = relation(claim, given)
    if rule == "conflict":
        return None
    if rule != "kin":
        return rule
    ontology = load()
    implied = ontology.descendants if claim.polarity == "absent" else ontology.ancestors
    return "entailed" if claim.concept in implied[given.concept] else "kin"
