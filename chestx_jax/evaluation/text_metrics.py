"""Word overlap of the predicted with the gold reasoning: BLEU and ROUGE, through their usual packages.

Both count words, so "no effusion" and "an effusion" are nearly the same to them: they say how alike two texts
sound, not whether they agree. They need the extra `metrics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chestx_jax.evaluation.accuracy import Case, bootstrap_interval
from chestx_jax.evaluation.tables import markdown

MISSING = "text metrics need sacrebleu and rouge-score: pip install 'chestx_jax[metrics]'"


class MetricsError(Exception):
    """The packages of the text metrics are not installed, or there is nothing to compare."""


@dataclass(frozen=True)
class TextScore:
    """Of one model's reasoning; between 0 and 1, but `bleu` as usual between 0 and 100.

    Attributes:
      count: samples with gold reasoning; a prediction without reasoning scores 0.
      bleu: corpus BLEU-4 (sacrebleu's standard tokenizer; `signature` tells the settings).
      rouge_1, rouge_2, rouge_l: mean F-measures with stemming; `low`, `high`: 95 % interval of rouge_l.
    """

    model: str
    count: int
    bleu: float
    rouge_1: float
    rouge_2: float
    rouge_l: float
    low: float
    high: float
    signature: str


def text_score(model: str, cases: Sequence[Case], seed: int = 0) -> TextScore | None:
    """Over the cases with gold reasoning; None when there is none.

    Raises:
      MetricsError: the packages are not installed.
    """
    sacrebleu, rouge = _packages()
    pairs = [
        (" ".join(case.steps), " ".join(case.sample.reason_steps))
        for case in cases
        if case.sample.reason_steps
    ]
    if not pairs:
        return None
    bleu = sacrebleu.metrics.BLEU()
    corpus = bleu.corpus_score([text for text, _ in pairs], [[gold for _, gold in pairs]])
    scorer = rouge.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = [scorer.score(gold, text) for text, gold in pairs]
    means = {name: np.array([one[name].fmeasure for one in found]) for name in ("rouge1", "rouge2", "rougeL")}
    low, high = bootstrap_interval(means["rougeL"], seed)
    return TextScore(
        model=model,
        count=len(pairs),
        bleu=float(corpus.score),
        rouge_1=float(means["rouge1"].mean()),
        rouge_2=float(means["rouge2"].mean()),
        rouge_l=float(means["rougeL"].mean()),
        low=low,
        high=high,
        signature=str(bleu.get_signature()),
    )


def _packages() -> tuple[Any, Any]:
    try:
        import sacrebleu
        from rouge_score import rouge_scorer
    except ImportError as error:
        raise MetricsError(MISSING) from error
    return sacrebleu, rouge_scorer


def text_markdown(scores: Sequence[TextScore]) -> str:
    """The table."""
    return markdown(
        ("model", "samples", "BLEU", "ROUGE-1", "ROUGE-2", "ROUGE-L", "95 % interval of ROUGE-L"),
        [
            (
                one.model,
                str(one.count),
                f"{one.bleu:.1f}",
                f"{one.rouge_1:.3f}",
                f"{one.rouge_2:.3f}",
                f"{one.rouge_l:.3f}",
                f"{one.low:.3f} to {one.high:.3f}",
            )
            for one in scores
        ],
    )
