"""RadRScore (ChestX-Reasoner, arXiv 2504.20930): how factual, complete and effective a model's reasoning is.

The official form: a language model judges (`judge`), one function adds up (`aggregate`), whoever judged. The
offline form (`rewards.offline`) judges by rules over findings, with evidence, and is hard to fool (`probes`); the
calibrated one (`calibrated`) predicts a language model's judgment. Neither is the paper's RadRScore.
"""

from chestx_jax.evaluation.radrscore.aggregate import (
    AggregateError,
    Judgment,
    Malformed,
    RadRScore,
    aggregate,
    judgment,
    read_judged,
    score_markdown,
)
from chestx_jax.evaluation.radrscore.calibrated import CalibratedJudge, CalibratedJudgeError, features
from chestx_jax.evaluation.radrscore.judge import JudgeError, estimate_judging, judge_cases
from chestx_jax.rewards.offline import OfflineRadRScore, offline_radrscore
from chestx_jax.rewards.reference import MissingReference, Reference

__all__ = [
    "AggregateError",
    "CalibratedJudge",
    "CalibratedJudgeError",
    "JudgeError",
    "Judgment",
    "Malformed",
    "MissingReference",
    "OfflineRadRScore",
    "RadRScore",
    "Reference",
    "aggregate",
    "estimate_judging",
    "features",
    "judge_cases",
    "judgment",
    "offline_radrscore",
    "read_judged",
    "score_markdown",
]
