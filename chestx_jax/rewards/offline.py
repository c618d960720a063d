"""The offline RadRScore: the three components of RadRScore by transparent rules, with their evidence.

It is NOT the RadRScore of the paper, which a language model judges (`evaluation.radrscore.judge`); the two
correlate, see `python -m benchmarks.radrscore`. The rules:

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
  either; hedged or by degree ("edema .. edema is unlikely", "edema .. no large edema") nothing for the denial,
  which is not counted either. The answer is part of the text: it earns nothing where the reasoning denies it
  or affirms another option. Where it is denied, the reasoning leads away from it: effectiveness is 0.
* Brevity: the denominators of factuality and effectiveness are at least half the gold reasoning's claims and
  sentences, or one true sentence would outdo any full reasoning.
* No sentences: all 0. A zero denominator scores 0. The score is the mean of the three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chestx_jax.rewards.evidence import Evidence, weigh
from chestx_jax.rewards.reading import Reading, read_steps, read_text
from chestx_jax.rewards.reference import Reference, Verdict

BREVITY = 0.5
"""The least denominator, as a share of the gold reasoning's."""


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
    evidence = weigh(reading, reference)
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
        told = [c.verdict for c in evidence.claims if c.finding.polarity == polarity and _counts(c.verdict)]
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
    leads_away = conclusion is not None and conclusion.denied
    effectiveness = (effective + bonus) / length if length and not leads_away else 0.0
    return factuality, completeness, effectiveness, (factuality + completeness + effectiveness) / 3


def _counts(verdict: Verdict) -> bool:
    """Whether a claim is in the denominators: not the denials of a hedge, nor true normals beside the topic."""
    return verdict.rule != "hedge" and (verdict.on_topic or verdict.verdict != "supported")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
