"""The offline RadRScore: the three components of RadRScore by transparent rules, with their evidence.

It is NOT the RadRScore of the paper, which a language model judges (`judge`); the two correlate, see
`python -m benchmarks.radrscore`. The rules:

* A text's claims are its asserted findings (`radiology.extract_findings`), each (concept, polarity, side)
  once; repeating one adds nothing. A closed question's answer is one claim more, of prediction and gold.
* factuality: credit of the claims / claims. A claim earns what gold reasoning, report or question bears out
  (`reference.CREDIT`). A claim that they contradict or never mention earns nothing, so does an unmentioned
  normal, unless the question offers that finding. A text that says both A and not A earns nothing for either.
* completeness: credit of the gold claims that the prediction states / gold claims.
* effectiveness: effective sentences / sentences. Effective is a sentence of which nothing is contradicted and
  that states a supported claim that is new and on topic (present, or asked about by the question or treated
  in the gold reasoning), or that is a sentence of the gold reasoning word for word, the first time. Plans
  ("we look for an effusion"), repetitions and sentences that claim nothing stay in the denominator.
* Brevity: the denominators of factuality and effectiveness are at least half the gold reasoning's claims and
  sentences, or one true sentence would outdo any full reasoning.
* No sentences: all 0. A zero denominator scores 0. The score is the mean of the three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chestx_jax.evaluation.radrscore.reference import Key, Reading, Reference, Verdict, read_steps, read_text
from chestx_jax.radiology import Finding, contradictions

BREVITY = 0.5
"""The least denominator, as a share of the gold reasoning's."""

SENTENCES = ("supported", "contradicted", "unmentioned", "repeated", "off_topic", "empty")
"""What a sentence can be: the worst of its claims decides `contradicted`, else the best.

supported     effective
contradicted  a claim conflicts with gold reasoning or report, or with the text itself
unmentioned   claims of which no source speaks
repeated      supported, but said before
off_topic     supported, but neither the question nor the gold reasoning is about it
empty         claims nothing: no concept, a plan, a question
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
    """The predicted and the right answer; credit between 0 and 1."""

    predicted: str | None
    right: str
    credit: float


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
    text = isinstance(prediction, str)
    return score_reading(read_text(prediction) if text else read_steps(prediction, answer), reference)


def score_reading(reading: Reading, reference: Reference) -> OfflineRadRScore:
    """Scores a prediction that has been read."""
    verdicts = _verdicts(reading, reference)
    sentences = _sentences(reading, reference, verdicts)
    recall = _recall(verdicts, reference)
    conclusion = None
    if reference.answer is not None:
        credit = reference.concluded(reading.answer)
        conclusion = Conclusion(reading.answer, reference.answer, credit)
    claims = tuple(ClaimEvidence(finding, verdict) for finding, verdict in verdicts.values())
    evidence = Evidence(reading.text, claims, recall, sentences, conclusion)
    return OfflineRadRScore(*_components(evidence, reference), evidence)


def _components(evidence: Evidence, reference: Reference) -> tuple[float, float, float, float]:
    if not evidence.sentences:
        return 0.0, 0.0, 0.0, 0.0
    conclusion = evidence.conclusion
    bonus = conclusion.credit if conclusion else 0.0
    asked = int(conclusion is not None)
    answered = int(conclusion is not None and conclusion.predicted is not None)
    gold = len(reference.gold_claims)
    told = max(len(evidence.claims), BREVITY * gold) + answered
    factuality = _ratio(sum(claim.verdict.credit for claim in evidence.claims) + bonus, told)
    completeness = _ratio(sum(one.credit for one in evidence.gold) + bonus, gold + asked)
    effective = sum(sentence.verdict == "supported" for sentence in evidence.sentences)
    length = max(len(evidence.sentences), BREVITY * len(reference.gold.sentences)) + answered
    effectiveness = _ratio(effective + bonus, length)
    return factuality, completeness, effectiveness, (factuality + completeness + effectiveness) / 3


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _verdicts(reading: Reading, reference: Reference) -> dict[Key, tuple[Finding, Verdict]]:
    """Each claim with the verdict of its mentions: contradicted if one of them is, else the best."""
    broken: dict[Key, Finding] = {}
    for one, two in contradictions(mention.finding for mention in reading.mentions):
        keys = [(half.concept, half.polarity, half.laterality) for half in (one, two)]
        if not all(key in reference.gold.keys for key in keys):  # else the gold reasoning says both, too
            broken |= {keys[0]: two, keys[1]: one}
    verdicts = {}
    for key, mentions in reading.claims.items():
        judged = [(mention.finding, reference.verdict(mention.finding)) for mention in mentions]
        if key in broken:
            verdict = Verdict("contradicted", source="prediction", rule="conflict", witness=broken[key])
            verdicts[key] = (mentions[0].finding, verdict)
            continue
        worst = next((one for one in judged if one[1].verdict == "contradicted"), None)
        verdicts[key] = worst or max(judged, key=lambda one: (one[1].verdict == "supported", one[1].credit))
    return verdicts


def _recall(
    verdicts: dict[Key, tuple[Finding, Verdict]], reference: Reference
) -> tuple[GoldEvidence, ...]:
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
    found = []
    for sentence, said in zip(reading.sentences, keys, strict=True):
        words = sentence.words
        if words in reference.gold_sentences and words not in copied:
            verdict = "supported"
            copied.add(words)
        else:
            verdict = _sentence(said, known, verdicts)
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
    if any(verdict.on_topic and key not in known for key, verdict in supported):
        return "supported"
    if any(key in known for key, _ in supported) or not judged:
        return "repeated"
    return "off_topic" if supported else "unmentioned"
