"""The process reward: whether the reasoning is true, complete and to the point, by rules over findings.

The paper (ChestX-Reasoner, arXiv 2504.20930) rewards the factuality of the process and never released how;
this is a documented one. It is the F1 of the claims of the reasoning, each (concept, polarity, side) once,
against the gold steps and the report (`evidence`, `Reference`):

* Precision of a polarity, affirmed or denied: (credit of its claims - `CONTRADICTION` for each contradicted
  one) / (its claims, or `BREVITY` of the gold claims on topic where these are more, + `IDLE` / 2 for each
  idle step), at least 0. A claim is borne out by gold steps, report
  or question with the credit of `reference.CREDIT`. Contradicted and unmentioned claims earn nothing and
  count. So do normals beside the topic: what the question does not ask for earns nothing, unless the gold
  reasoning affirms nothing at all; those that the gold reasoning states are left out.
* Who affirms a finding and denies it as well, hedged or by degree ("possible edema .. no edema", "edema .. no
  large edema"), earns nothing for the denial (`evidence`); outright, nothing for either.
* Idle are steps that claim nothing, only plan, or repeat: they cost, so length cannot pay. A step of the gold
  reasoning word for word is not idle, the first time.
* Recall of a polarity: credit of the gold claims on topic that the reasoning states / their number.
* Precision and recall of the two polarities, where text or gold has any, are joined by the power mean of
  exponent 1/2: a text that only affirms or only denies earns at most a quarter of each. Three of four options
  are absent, so that denying everything would otherwise do as well as looking.
* The answer is no claim here: the outcome reward pays for it. But a reasoning that denies its own answer
  contradicts itself.

No reasoning earns 0, the gold reasoning 1. Where nothing can be checked (a sample without gold steps or
report, or gold steps without a claim on topic) the reward does not apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from chestx_jax.rewards.evidence import IDLE_SENTENCES, ClaimEvidence, Evidence, weigh
from chestx_jax.rewards.reading import Reading, read_text
from chestx_jax.rewards.reference import Reference
from chestx_jax.rewards.signature import Completion, StepReward, Stepwise, text_of

CONTRADICTION = 0.25
IDLE = 0.5
BREVITY = 0.5
"""Tuned with `python -m benchmarks.rewards` on half of the reports, checked on the other half."""

STEP_VALUES = {
    "supported": 1.0,
    "off_topic": 0.0,
    "repeated": -0.5,
    "planned": -0.5,
    "empty": -0.5,
    "unmentioned": -0.5,
    "contradicted": -1.0,
}
"""What a step is worth by its verdict (`evidence.SENTENCES`): 1 for a new claim on topic that is borne out, or
for a gold step word for word; 0 for what neither helps nor harms; below 0 for what no source says and for idle
words, and least for what a source denies. Idle words must be worth less than a claim that may be false: at 0,
a model whose claims are true six times in ten learned to make none and to fill its tokens."""

_NO_LINK = ("off_topic", *IDLE_SENTENCES)


def process_reward(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    reason_steps: Sequence[Sequence[str]],
    report: Sequence[str],
    options: Sequence[Sequence[str] | None],
    answer: Sequence[str],
    **columns: Any,
) -> list[float | None]:
    """The reward of each completion, 0 to 1, with the values of its steps, -1 to 1 (`Stepwise`); None where it
    does not apply. Columns of the samples: `reason_steps`, `report`, `options`, `answer`.

    Steps are those of `data.chat.parse`, their spans count in the completion. What the gold side says is read
    once a sample and remembered.
    """
    scores: list[float | None] = []
    for completion, steps, text, choices, right in zip(
        completions, reason_steps, report, options, answer, strict=True
    ):
        reference = _reference(tuple(steps), text, tuple(choices) if choices is not None else None, right)
        scores.append(process_score(read_text(text_of(completion)), reference) if reference else None)
    return scores


def process_score(reading: Reading, reference: Reference) -> Stepwise:
    """The reward of one reasoning that has been read, with the values of its steps.

    Raises:
      ValueError: the gold reasoning has no claim on topic, nothing can be checked.
    """
    if not reference.gold_claims:
        raise ValueError("the gold reasoning claims nothing on topic")
    evidence = weigh(reading, reference)
    steps = [
        StepReward(s.start, s.end, STEP_VALUES[s.verdict], link=s.verdict not in _NO_LINK)
        for s in evidence.sentences
    ]
    return Stepwise(_f1(evidence), steps)


def _f1(evidence: Evidence) -> float:
    idle = sum(sentence.verdict in IDLE_SENTENCES for sentence in evidence.sentences)
    precisions, recalls = [], []
    for polarity in ("present", "absent"):
        claims = [one for one in evidence.claims if one.finding.polarity == polarity and _counts(one)]
        recalled = [one.credit for one in evidence.gold if one.finding.polarity == polarity]
        if claims or recalled:
            precisions.append(_precision(claims, len(recalled), idle))
        if recalled:
            recalls.append(sum(recalled) / len(recalled))
    precision, recall = _power_mean(precisions), _power_mean(recalls)
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def _counts(claim: ClaimEvidence) -> bool:
    """All but the normals beside the topic that the gold reasoning states as well."""
    verdict = claim.verdict
    return verdict.on_topic or verdict.verdict != "supported" or verdict.source != "gold"


def _precision(claims: Sequence[ClaimEvidence], gold: int, idle: int) -> float:
    if not claims:
        return 0.0
    earned = sum(one.verdict.credit for one in claims if one.verdict.on_topic)
    lost = CONTRADICTION * sum(one.verdict.verdict == "contradicted" for one in claims)
    return max(0.0, earned - lost) / (max(len(claims), BREVITY * gold) + IDLE / 2 * idle)


def _power_mean(values: Sequence[float]) -> float:
    """Exponent 1/2: between the arithmetic and the geometric mean."""
    return (sum(value**0.5 for value in values) / len(values)) ** 2


@lru_cache(maxsize=4096)
def _reference(
    steps: tuple[str, ...], report: str, options: tuple[str, ...] | None, answer: str
) -> Reference | None:
    """The gold side of a sample; None where it has nothing to check."""
    if not steps or not report:
        return None
    reference = Reference.of(steps, report, options, answer)
    return reference if reference.gold_claims else None
