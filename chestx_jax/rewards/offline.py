"""The offline RadRScore: the three components of RadRScore by transparent rules, with their evidence.

It is NOT the RadRScore of the paper, which a language model judges (`evaluation.radrscore.judge`); the two correlate, see
`python -m benchmarks.radrscore`. The rules:

* A text's claims are its asserted findings (`radiology.extract_findings`), each (concept, polarity, side)
  once; repeating one adds nothing. The answer is one claim more, of prediction and gold.
* On topic are claims that something is present, and denials of what an option offers, or of something wider
  ("no lung opacity" where a nodule is offered); for an open question, of what the gold reasoning treats.
  Other normals earn nothing, wherever they come from ("no pneumothorax" in a question about the spine), but
  where the gold reasoning affirms nothing at all, every normal is on topic.
* factuality: credit of the claims / claims. A claim earns what gold reasoning, report or question bears out
  (`reference.CREDIT`); contradicted and unmentioned ones earn nothing, on topic or not, and count.
* completeness: credit of the gold claims on topic that the prediction states / their number.
* Both are the mean over two kinds of claims, affirmed (with the answer) and denied, where there are any: so
  affirming everything earns no more than half, nor does denying everything.
* effectiveness: effective sentences / sentences, the answer counted as one. Effective is a sentence of which
  nothing is contradicted and that states a supported claim that is new and on topic (a denial only where
  there are options), or that is a sentence of the gold reasoning word for word, the first time. Repetitions
  and sentences that claim nothing stay in the denominator, plans that name a finding ("we look for an
  effusion") do not.
* Contradictions: a text that says both A and not A (and the gold reasoning does not) earns nothing for
  either. The answer is part of the text: it earns nothing where the reasoning denies it or affirms another
  option.
* Brevity: the denominators of factuality and effectiveness are at least half the gold reasoning's claims and
  sentences, or one true sentence would outdo any full reasoning.
* No sentences: all 0. A zero denominator scores 0. The score is the mean of the three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chestx_jax.radiology import Finding, contradictions
from chestx_jax.rewards.reading import Key, Reading, read_steps, read_text
from chestx_jax.rewards.reference import Reference, Verdict

BREVITY = 0.5
"""The least denominator, as a share of the gold reasoning's."""

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


@dataclass(frozen=True)
class ClaimEvidence:
    """One claim of the prediction: a finding with spans into the text, and what the sources say of it.
    `verdict.source` is "prediction" where the text contradicts itself; the witness is then its other half."""

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
    or affirms another option, so that it earns nothing."""

    predicted: str | None
    right: str
    credit: float
    undercut: bool


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


@dataclass(frozen=True)
class OfflineRadRScore:
    """An offline RadRScore, never to be mixed with GPT-4o's; all numbers between 0 and 1."""

    factuality: float
    completeness: float
    effectiveness: float
    score: float
    evidence: Evidence


def offline_radrscore(
    prediction: str | Sequence[str], reference: Reference, answer: str | None = None
) -> OfflineRadRScore:
    """Scores one prediction.

    Args:
      prediction: a completion (reasoning and answer are parsed out of it), or its reasoning steps.
      reference: `Reference.of(gold_steps, report, options, answer)`; build it once a sample.
      answer: the predicted answer where `prediction` is steps; in a completion the parsed answer counts.
    """
    if isinstance(prediction, str):
        return score_reading(read_text(prediction), reference)
    return score_reading(read_steps(prediction, answer), reference)


def score_reading(reading: Reading, reference: Reference) -> OfflineRadRScore:
    """Scores a prediction that has been read."""
    answered = reference.answered(reading.answer)
    broken = _broken(reading, reference, answered)
    verdicts = _verdicts(reading, reference, broken)
    conclusion = None
    if reference.answer is not None:
        denied = any(finding in answered for finding in broken.values())
        undercut = denied or _affirms_another(reading, reference, answered)
        credit = 0.0 if undercut else reference.concluded(reading.answer)
        conclusion = Conclusion(reading.answer, reference.answer, credit, undercut)
    evidence = Evidence(
        reading.text,
        tuple(ClaimEvidence(finding, verdict) for finding, verdict in verdicts.values()),
        _recall(verdicts, reference),
        _sentences(reading, reference, verdicts),
        conclusion,
    )
    return OfflineRadRScore(*_components(evidence, reference), evidence)


def _components(evidence: Evidence, reference: Reference) -> tuple[float, float, float, float]:
    if not evidence.sentences:
        return 0.0, 0.0, 0.0, 0.0
    conclusion = evidence.conclusion
    bonus = conclusion.credit if conclusion else 0.0
    asked = int(conclusion is not None)
    answered = int(conclusion is not None and conclusion.predicted is not None)
    precision, recall = [], []
    for polarity in ("present", "absent"):
        last = polarity == "present"  # the answer is an affirmation
        told = [c.verdict for c in evidence.claims if c.finding.polarity == polarity and c.verdict.counts]
        gold = [one.credit for one in evidence.gold if one.finding.polarity == polarity]
        whole = max(len(told), BREVITY * len(gold)) + answered * last
        if whole:
            precision.append((sum(v.credit for v in told if v.on_topic) + bonus * last) / whole)
        if len(gold) + asked * last:
            recall.append((sum(gold) + bonus * last) / (len(gold) + asked * last))
    effective = sum(sentence.verdict == "supported" for sentence in evidence.sentences)
    counted = sum(sentence.verdict != "planned" for sentence in evidence.sentences)
    length = max(counted, BREVITY * len(reference.gold.sentences)) + answered
    factuality, completeness = _mean(precision), _mean(recall)
    effectiveness = (effective + bonus) / length if length else 0.0
    return factuality, completeness, effectiveness, (factuality + completeness + effectiveness) / 3


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _broken(reading: Reading, reference: Reference, answered: Sequence[Finding]) -> dict[Key, Finding]:
    """Claims that the text contradicts itself on, each with its other half; pairs that the gold reasoning
    asserts both are left alone."""
    broken: dict[Key, Finding] = {}
    for one, two in contradictions([*answered, *(mention.finding for mention in reading.mentions)]):
        keys = [(half.concept, half.polarity, half.laterality) for half in (one, two)]
        if not all(key in reference.gold.keys for key in keys):
            broken |= {keys[0]: two, keys[1]: one}
    return broken


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
    reading: Reading, reference: Reference, broken: dict[Key, Finding]
) -> dict[Key, tuple[Finding, Verdict]]:
    """Each claim with the verdict of its mentions: contradicted if one of them is, else the best."""
    verdicts = {}
    for key, mentions in reading.claims.items():
        if key in broken:
            witness = broken[key]
            verdict = Verdict("contradicted", 0.0, "prediction", "conflict", True, witness)
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
