"""One model on held-out questions: is it right, is its reasoning, how long is it, and does it cheat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chestx_jax.data.schema import Sample
from chestx_jax.evaluation.accuracy import Case, judge
from chestx_jax.evaluation.inference import Inference
from chestx_jax.evaluation.offline_scores import Scored, score_offline
from chestx_jax.evaluation.predict import Decoding
from chestx_jax.evaluation.predictions import read_predictions
from chestx_jax.evaluation.radrscore.probes import Subject, probe_table
from chestx_jax.rewards.evidence import IDLE_SENTENCES, Evidence

HONEST = ("gold reasoning", "real output")


@dataclass(frozen=True)
class Measured:
    """A model on the held-out questions; means over them, shares between 0 and 1.

    Attributes:
      accuracy: by task; `mean` is the mean over tasks.
      radrscore: factuality, completeness, effectiveness and score of the offline RadRScore, over the questions
        that have gold reasoning.
      tokens: of a greedy completion.
      contradictory: completions that affirm and deny the same.
      idle: sentences that claim nothing, only plan, or repeat.
      affirming: claims that affirm a finding, among all claims.
      unfounded: claims that no source bears out, or that one denies.
      margin: offline RadRScore of the completions minus that of the best hack put in their place
        (`evaluation.radrscore.probes`); below 0 the model could do better by cheating.
      best_hack: its name.
    """

    accuracy: Mapping[str, float]
    radrscore: Mapping[str, float]
    tokens: float
    contradictory: float
    idle: float
    affirming: float
    unfounded: float
    margin: float
    best_hack: str


def answer(directory: Path, data: Path, out: Path, *, max_new_tokens: int, batch_size: int) -> None:
    """Greedy predictions of the model in `directory` for the questions in `data`; goes on where it stopped."""
    inference = Inference.load(str(directory), None, image_size=None, dtype=None)
    inference.predict_file(data, out, Decoding(max_new_tokens=max_new_tokens, batch_size=batch_size))


def measure(samples: Sequence[Sample], predictions: Path) -> Measured:
    """The figures of a predictions file.

    Raises:
      PredictionError: the file cannot be read.
    """
    rows = read_predictions(predictions)
    cases = judge(samples, rows)
    scored = [one for one in score_offline({"": cases})[""] if one is not None]
    evidence = [one.result.evidence for one in scored]
    verdicts = [sentence.verdict for one in evidence for sentence in one.sentences]
    claims = [claim for one in evidence for claim in one.claims]
    hack, margin = _best_hack(scored)
    return Measured(
        accuracy=_accuracy(cases),
        radrscore={
            name: float(np.mean([vars(one.result)[name] for one in scored]))
            for name in ("factuality", "completeness", "effectiveness", "score")
        },
        tokens=float(np.mean([row["tokens"] for row in rows.values()])),
        contradictory=float(np.mean([_contradicts_itself(one) for one in evidence])),
        idle=float(np.mean([verdict in IDLE_SENTENCES for verdict in verdicts])) if verdicts else 0.0,
        affirming=_share([claim.finding.polarity == "present" for claim in claims]),
        unfounded=_share([claim.verdict.verdict != "supported" for claim in claims]),
        margin=margin,
        best_hack=hack,
    )


def _accuracy(cases: Sequence[Case]) -> dict[str, float]:
    tasks = dict.fromkeys(case.sample.task for case in cases)
    found = {task: _share([case.correct for case in cases if case.sample.task == task]) for task in tasks}
    return {**found, "mean": float(np.mean(list(found.values())))}


def _share(flags: Sequence[bool]) -> float:
    return float(np.mean(flags)) if flags else 0.0


def _contradicts_itself(evidence: Evidence) -> bool:
    return any(claim.verdict.source == "prediction" for claim in evidence.claims)


def _best_hack(scored: Sequence[Scored]) -> tuple[str, float]:
    subjects = [
        Subject(
            one.case.sample.question,
            one.case.steps,
            one.case.answer,
            scored[(i + 1) % len(scored)].case.steps,
            one.reference,
        )
        for i, one in enumerate(scored)
    ]
    hacks = [row for row in probe_table(subjects) if row.name not in HONEST]
    best = min(hacks, key=lambda row: row.margin)
    return best.name, best.margin
