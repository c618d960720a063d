"""What a text claims, held against its reference: a verdict on every claim, gold claim and sentence.

The ground of the process reward and of the offline RadRScore, which differ in how they add up.

* A text's claims are its asserted findings (`radiology.extract_findings`), each (concept, polarity, side)
  once. What is on topic and what bears a claim out: `Reference`.
* A text that says both A and not A (and the gold reasoning does not) is contradicted on either. The answer is
  part of the text: it earns nothing where the reasoning denies it or affirms another option.
* Who affirms a finding and denies it as well, hedged or by degree, earns nothing for the denial (`_hedged`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chestx_jax.radiology import Finding, contradictions
from chestx_jax.rewards.reading import Key, Reading
from chestx_jax.rewards.reference import Reference, Verdict

SENTENCES = ("supported", "contradicted", "unmentioned", "repeated", "off_topic", "planned", "empty")
"""What a sentence can be: the worst of its claims decides `contradicted`, else the best.

supported     effective
contradicted  a claim conflicts with gold reasoning or report, or with the text itself
unmentioned   claims of which no source speaks
repeated      supported, but said before
off_topic     supported, but not on topic, or a denial in answer to an open question
planned       names a finding without asserting it; not counted
empty         names no finding
"""

IDLE_SENTENCES = ("empty", "planned", "repeated")
"""Those that claim nothing new."""


@dataclass(frozen=True)
class ClaimEvidence:
    """One claim of the prediction: a finding with spans into the text, and what the sources say of it.
    `verdict.source` is "prediction" where the text contradicts itself or hedges; the witness is then its other
    half."""

    finding: Finding
    verdict: Verdict


@dataclass(frozen=True)
class GoldEvidence:
    """One gold claim, spans into "\\n".join(gold_steps), and the predicted one that recalls it, if any."""

    finding: Finding
    credit: float
    recalled_by: Finding | None


@dataclass(frozen=True)
class SentenceEvidence:
    """`text[start:end]` of the prediction is `verdict`, one of `SENTENCES`."""

    start: int
    end: int
    verdict: str


@dataclass(frozen=True)
class Conclusion:
    """The predicted and the right answer; credit between 0 and 1. `undercut`: the reasoning denies the answer
    (`denied`) or affirms another option, so that it earns nothing."""

    predicted: str | None
    right: str
    credit: float
    undercut: bool
    denied: bool


@dataclass(frozen=True)
class Evidence:
    """Why a score is what it is. All spans of claims and sentences are into `text`.

    Attributes:
      conclusion: None where the reference has no answer.
    """

    text: str
    claims: tuple[ClaimEvidence, ...]
    gold: tuple[GoldEvidence, ...]
    sentences: tuple[SentenceEvidence, ...]
    conclusion: Conclusion | None


def weigh(reading: Reading, reference: Reference) -> Evidence:
    """Holds a text that has been read against its reference."""
    answered = reference.answered(reading.answer)
    broken = _broken(reading, reference, answered)
    verdicts = _verdicts(reading, reference, broken, _hedged(reading, reference))
    conclusion = None
    if reference.answer is not None:
        denied = any(finding in answered for finding in broken.values())
        undercut = denied or _affirms_another(reading, reference, answered)
        credit = 0.0 if undercut else reference.concluded(reading.answer)
        conclusion = Conclusion(reading.answer, reference.answer, credit, undercut, denied)
    return Evidence(
        reading.text,
        tuple(ClaimEvidence(finding, verdict) for finding, verdict in verdicts.values()),
        _recall(verdicts, reference),
        _sentences(reading, reference, verdicts),
        conclusion,
    )


def _hedged(reading: Reading, reference: Reference) -> dict[Key, Finding]:
    """Denials of what the text also affirms, however certain and of whatever degree, on sides that are not
    opposed: "possible edema .. no edema", "edema .. edema is unlikely", "edema .. no large edema". Each with
    what affirms it.

    Honest texts do so too ("opacity at the base .. no opacity elsewhere"), but a text that is right whatever is
    true must not earn by it; denials that the gold reasoning joins are left alone."""
    affirmed: dict[str, list[Finding]] = {}
    for mention in reading.mentions:
        if mention.finding.polarity == "present":
            affirmed.setdefault(mention.finding.concept, []).append(mention.finding)
    return {
        denial.key: other
        for denial in reading.mentions
        if denial.finding.polarity == "absent"
        for other in affirmed.get(denial.finding.concept, ())
        if {denial.finding.laterality, other.laterality} != {"left", "right"}
        and not _both_gold(other, denial.finding, reference)
    }


def _broken(reading: Reading, reference: Reference, answered: Sequence[Finding]) -> dict[Key, Finding]:
    """Claims that the text contradicts itself on, each with its other half; pairs that the gold reasoning
    asserts both are left alone."""
    broken: dict[Key, Finding] = {}
    for one, two in contradictions([*answered, *(mention.finding for mention in reading.mentions)]):
        if not _both_gold(one, two, reference):
            broken |= {_key(one): two, _key(two): one}
    return broken


def _both_gold(one: Finding, two: Finding, reference: Reference) -> bool:
    return _key(one) in reference.gold.keys and _key(two) in reference.gold.keys


def _key(finding: Finding) -> Key:
    return finding.concept, finding.polarity, finding.laterality


def _affirms_another(reading: Reading, reference: Reference, answered: Sequence[Finding]) -> bool:
    """Whether the text affirms all findings of another option, beyond what the answered option says."""
    if reference.chosen(reading.answer) is None:
        return False
    said, gold = reading.affirmed, reference.gold.affirmed
    related = {finding.concept for finding in answered}
    return any(
        wanted and wanted <= said and not wanted <= gold
        for wanted in (option - related for option in reference.offered)
    )


def _verdicts(
    reading: Reading, reference: Reference, broken: dict[Key, Finding], hedged: dict[Key, Finding]
) -> dict[Key, tuple[Finding, Verdict]]:
    """Each claim with the verdict of its mentions: contradicted if one of them is, else the best."""
    verdicts = {}
    for key, mentions in reading.claims.items():
        if key in broken:
            witness = broken[key]
            verdict = Verdict("contradicted", 0.0, "prediction", "conflict", True, witness)
            verdicts[key] = (mentions[0].finding, verdict)
            continue
        if key in hedged:
            verdict = Verdict("unmentioned", 0.0, "prediction", "hedge", True, hedged[key])
            verdicts[key] = (mentions[0].finding, verdict)
            continue
        judged = [(mention.finding, reference.verdict(mention.finding)) for mention in mentions]
        worst = next((one for one in judged if one[1].verdict == "contradicted"), None)
        verdicts[key] = worst or max(judged, key=lambda one: (one[1].verdict == "supported", one[1].credit))
    return verdicts


def _recall(verdicts: dict[Key, tuple[Finding, Verdict]], reference: Reference) -> tuple[GoldEvidence, ...]:
    best: dict[int, tuple[float, Finding]] = {}
    for finding, verdict in verdicts.values():
        for i, credit in verdict.recalls:
            if i not in best or credit > best[i][0]:
                best[i] = (credit, finding)
    return tuple(
        GoldEvidence(gold, *best.get(i, (0.0, None))) for i, gold in enumerate(reference.gold_claims)
    )


def _sentences(
    reading: Reading, reference: Reference, verdicts: dict[Key, tuple[Finding, Verdict]]
) -> tuple[SentenceEvidence, ...]:
    keys: list[list[Key]] = [[] for _ in reading.sentences]
    for mention in reading.mentions:
        keys[mention.sentence].append(mention.key)
    known: set[Key] = set()
    copied: set[str] = set()
    found: list[SentenceEvidence] = []
    for sentence, said in zip(reading.sentences, keys, strict=True):
        words = sentence.words
        if words in reference.gold_sentences and words not in copied:
            verdict = "supported"
            copied.add(words)
        else:
            planned = len(found) in reading.planned
            verdict = "planned" if planned else _sentence(said, known, verdicts)
        known.update(said)
        found.append(SentenceEvidence(sentence.start, sentence.end, verdict))
    return tuple(found)


def _sentence(said: list[Key], known: set[Key], verdicts: dict[Key, tuple[Finding, Verdict]]) -> str:
    if not said:
        return "empty"
    # a claim without a side was dropped where the text also makes it with one: no news
    judged = [(key, verdicts[key][1]) for key in said if key in verdicts]
    if any(verdict.verdict == "contradicted" for _, verdict in judged):
        return "contradicted"
    supported = [(key, verdict) for key, verdict in judged if verdict.verdict == "supported"]
    if any(verdict.effective and key not in known for key, verdict in supported):
        return "supported"
    if any(key in known for key, _ in supported) or not judged:
        return "repeated"
    return "off_topic" if supported else "unmentioned"
