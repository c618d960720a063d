"""RadRScore (ChestX-Reasoner, arXiv 2504.20930): how factual, complete and effective a model's reasoning is.

The official form: a language model judges (`judge`), one function adds up (`aggregate`), whoever judged.
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
from chestx_jax.evaluation.radrscore.judge import JudgeError, estimate_judging, judge_cases

__all__ = [
    "AggregateError",
    "JudgeError",
    "Judgment",
    "Malformed",
    "RadRScore",
    "aggregate",
    "estimate_judging",
    "judge_cases",
    "judgment",
    "read_judged",
    "score_markdown",
]
