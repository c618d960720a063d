"""What a prediction is held against: the gold reasoning, the report and the question, read once a sample.

Rests on `radiology` and `data` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from chestx_jax.data.chat import label_set, parse, predicted_option, split_steps
from chestx_jax.data.schema import LETTERS, Sample
from chestx_jax.radiology import Finding, extract_findings, load, match_findings

CREDIT = {"same": 1.0, "entailed": 1.0, "side": 0.75, "kin": 0.5}
"""What a claim earns that a source bears out, by rule: `same`, `side` and `kin` as in `radiology.Match`;
`entailed`: it follows ("no edema" from "no lung opacity", "lung opacity" from "pneumonia")."""
_SURE = 0.75
"""From this credit on, a source's support outweighs a conflict with the other source."""

Key = tuple[str, str, str | None]


class MissingReference(ValueError):
    """A sample without what RadRScore needs; the message names the sample and its field."""


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
    parsed = parse(text)
    return _read(text, parsed.spans, parsed.answer)


def _read(text: str, spans: Iterable[tuple[int, int]], answer: str | None) -> Reading:
    sentences, mentions, planned = [], [], []
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


@dataclass(frozen=True)
class Verdict:
    """What the sources say of one claim.

    Attributes:
      verdict: supported, contradicted or unmentioned.
      credit: 0 to 1, of `CREDIT`; above 0 only where supported.
      source: gold, report or question; None where unmentioned. The question supports the denial of a finding
        it offers, when neither gold nor report mentions that finding.
      rule: of `CREDIT`, or "conflict".
      on_topic: see `Reference.on_topic`.
      witness: the finding of the source, with spans into that source's text.
      recalls: (index into `Reference.gold_claims`, credit) of the gold claims that it states.
    """

    verdict: str
    credit: float = 0.0
    source: str | None = None
    rule: str | None = None
    on_topic: bool = False
    witness: Finding | None = None
    recalls: tuple[tuple[int, float], ...] = ()

    @property
    def counts(self) -> bool:
        """Whether the claim is in the denominator: all but supported normals beside the topic."""
        return self.on_topic or self.verdict != "supported"


@dataclass(frozen=True)
class Reference:
    """The gold side of one sample. Build it once: it remembers its verdicts.

    Attributes:
      gold: the gold reasoning; its spans count in "\\n".join(gold_steps).
      report: the report's findings, with spans into the report.
      options: the options' texts, None for an open question.
      answer: the right letter, or the right text of an open question; None leaves the answer out of the score.
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
        """Whether a claim belongs to an answer to this question: it says that something is present, or it
        denies what an option offers (or what implies it or is implied by it). Other normals earn and cost
        nothing, unless the gold reasoning affirms nothing at all: then normality is the topic."""
        return claim.polarity == "present" or self._normal or claim.concept in self._related

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
        """The concepts that the options offer."""
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
            known = self._verdicts[said] = self._judge(claim)
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
                        if match_findings((claim,), (other,)).conflicts:
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
    agreement = match_findings((claim,), (given,))
    if not agreement.pairs:
        return "entailed" if agreement.entailed else None
    rule = agreement.pairs[0].rule
    if rule != "kin":
        return rule
    ontology = load()
    implied = ontology.descendants if claim.polarity == "absent" else ontology.ancestors
    return "entailed" if claim.concept in implied[given.concept] else "kin"
