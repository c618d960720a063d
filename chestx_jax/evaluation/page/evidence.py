"""Sentences with their verdicts and the evidence for them, out of the offline RadRScore."""

from collections.abc import Mapping, Sequence

from chestx_jax.data.schema import Sample
from chestx_jax.evaluation.offline_scores import Scored
from chestx_jax.evaluation.page.parts import OWN, Evidence, Span
from chestx_jax.radiology import Finding
from chestx_jax.rewards.reading import Key, Located, read_steps
from chestx_jax.rewards.reference import Verdict

GOLD, REPORT = 0, 1
"""Places among a case's references."""
_SOURCES = {
    "gold": "by the gold reasoning",
    "report": "by the report",
    "question": "an option that neither gold reasoning nor report mentions",
    "prediction": "by the text itself",
}
_PLACES = {"gold": GOLD, "report": REPORT, "prediction": OWN}
_REASONS = {"side": ", the sides differ in part", "kin": ", as a related finding"}


def judged_spans(scored: Scored) -> list[Span]:
    """A span a sentence of the prediction."""
    verdicts = {_key(claim.finding): claim.verdict for claim in scored.result.evidence.claims}
    said: dict[int, list[Located]] = {}
    for mention in scored.reading.mentions:
        said.setdefault(mention.sentence, []).append(mention)
    return [
        _judged(one.start, one.end, one.verdict, said.get(i, []), verdicts)
        for i, one in enumerate(scored.result.evidence.sentences)
    ]


def _judged(
    start: int,
    end: int,
    verdict: str,
    said: Sequence[Located],
    verdicts: Mapping[Key, Verdict],
) -> Span:
    findings = {mention.key: mention.finding for mention in said}
    lines = [_evidence(finding, verdicts[key]) for key, finding in findings.items() if key in verdicts]
    if not lines and verdict == "supported":
        lines = [Evidence("a sentence of the gold reasoning, word for word")]
    return Span(start, end, verdict.replace("_", " "), lines)


def _evidence(finding: Finding, verdict: Verdict) -> Evidence:
    told = f"{name(finding)}: {verdict.verdict}"
    if verdict.source is None:
        return Evidence(told)
    if verdict.rule == "hedge":
        told = f"{name(finding)}: not counted, as the text also affirms it"
    elif verdict.source == "question":
        told += f", {_SOURCES[verdict.source]}"
    else:
        told += f" {_SOURCES[verdict.source]}"
    told += _REASONS.get(verdict.rule or "", "")
    if verdict.witness is None:
        return Evidence(told)
    witness = verdict.witness
    return Evidence(told, (_PLACES[verdict.source], witness.sentence_start, witness.sentence_end))


def name(finding: Finding) -> str:
    """ "no left pleural effusion", "possible pneumonia"."""
    hedge = "possible" if finding.certainty == "uncertain" else ""
    absent = "no" if finding.polarity == "absent" else ""
    return " ".join(word for word in (hedge, absent, finding.laterality or "", finding.concept) if word)


def gold_text(sample: Sample) -> str:
    """The gold reasoning as the offline RadRScore's spans count it."""
    return "\n".join(sample.reason_steps)


def gold_spans(sample: Sample, by_model: Mapping[str, Scored | None]) -> list[Span]:
    """A span a sentence of the gold reasoning: recalled where every model states all its claims, missed where
    none states any. Claims beside the topic cannot be missed. Without a score, or anything to recall: no verdict."""
    reading = read_steps(sample.reason_steps)
    scores = {model: scored for model, scored in by_model.items() if scored is not None}
    stated = {model: _stated(scored) for model, scored in scores.items()}
    asked = {_key(one.finding) for scored in scores.values() for one in scored.result.evidence.gold}
    said: dict[int, dict[Key, Finding]] = {}
    for mention in reading.mentions:
        if mention.key in reading.claims:
            said.setdefault(mention.sentence, {}).setdefault(mention.key, mention.finding)
    return [
        _recalled(sentence.start, sentence.end, said.get(i, {}), asked, stated)
        for i, sentence in enumerate(reading.sentences)
    ]


def _stated(scored: Scored) -> set[Key]:
    """The gold claims that a prediction recalls, and its own."""
    evidence = scored.result.evidence
    recalled = {_key(one.finding) for one in evidence.gold if one.credit > 0}
    return recalled | {_key(claim.finding) for claim in evidence.claims}


def _recalled(
    start: int,
    end: int,
    claims: Mapping[Key, Finding],
    asked: set[Key],
    stated: Mapping[str, set[Key]],
) -> Span:
    marks, lines = [], []
    for key, finding in claims.items():
        models = [model for model, keys in stated.items() if key in keys]
        if key in asked or models:
            marks += [model in models for model in stated]
            lines.append(Evidence(f"{name(finding)}: {_who(models, list(stated))}"))
    if not marks:
        return Span(start, end)
    verdict = "recalled" if all(marks) else "in part" if any(marks) else "missed"
    return Span(start, end, verdict, lines)


def _who(stated: Sequence[str], models: Sequence[str]) -> str:
    if len(models) == 1:
        return "stated by the prediction" if stated else "the prediction does not say so"
    return f"stated by {', '.join(stated)}" if stated else "stated by none"


def _key(finding: Finding) -> Key:
    return finding.concept, finding.polarity, finding.laterality
