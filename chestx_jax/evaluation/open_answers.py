"""Open answers ("Which findings are in this chest X-ray?"): precision, recall and F1 over concepts.

Answers are sets of concepts, as `rewards.answers` reads them.

Where no answer was read (free text without tags), the findings that the whole text states as present count
as named, or "no finding" where it only denies; such predictions are counted. A missing prediction scores 0.

Means are over samples; labels are counted over all samples, through the 14 CheXpert labels that a
concept and its parents carry.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from chestx_jax.data.schema import NO_FINDING
from chestx_jax.evaluation.accuracy import Case, bootstrap_interval
from chestx_jax.evaluation.tables import markdown
from chestx_jax.radiology import LABELS, extract_findings, load
from chestx_jax.rewards.answers import SetScore, concepts, ratios, set_score


@dataclass(frozen=True)
class LabelScore:
    """One label over all samples: how often gold, predicted and both."""

    label: str
    gold: int
    predicted: int
    both: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class OpenScore:
    """Means over the open questions; `low` and `high` are the 95 % interval of F1, `exact` the share of equal
    sets, `from_text` predictions in which no answer was read."""

    model: str
    count: int
    precision: float
    recall: float
    f1: float
    low: float
    high: float
    exact: float
    from_text: int
    labels: tuple[LabelScore, ...]


def named(case: Case) -> frozenset[str]:
    """The concepts that a prediction names: in its answer, or in its whole text where none was read."""
    if case.answer is not None:
        return concepts(case.answer)
    asserted = [finding for finding in extract_findings(case.prediction) if finding.asserted]
    present = frozenset(finding.concept for finding in asserted if finding.polarity == "present")
    return present or frozenset({NO_FINDING} if asserted else ())


def labels(found: Iterable[str]) -> frozenset[str]:
    """The CheXpert labels of concepts and of their parents."""
    ontology = load()
    carried = set()
    for concept in found:
        if concept in ontology.concepts:
            carried |= {ontology.concepts[parent].label for parent in ontology.ancestors[concept]}
        elif concept in LABELS:
            carried.add(concept)
    return frozenset(label for label in carried if label is not None)


def score_case(case: Case) -> SetScore:
    """One open question's answer against its gold answer."""
    return set_score(named(case), concepts(case.sample.answer))


def open_score(model: str, cases: Sequence[Case], seed: int = 0) -> OpenScore | None:
    """Over the open questions among `cases`; None when there is none."""
    asked = [case for case in cases if case.sample.options is None]
    if not asked:
        return None
    pairs = [(named(case), concepts(case.sample.answer)) for case in asked]
    scores = [set_score(predicted, gold) for predicted, gold in pairs]
    f1 = np.array([score.f1 for score in scores])
    low, high = bootstrap_interval(f1, seed)
    return OpenScore(
        model=model,
        count=len(asked),
        precision=float(np.mean([score.precision for score in scores])),
        recall=float(np.mean([score.recall for score in scores])),
        f1=float(f1.mean()),
        low=low,
        high=high,
        exact=sum(predicted == gold for predicted, gold in pairs) / len(pairs),
        from_text=sum(case.answer is None and bool(case.prediction) for case in asked),
        labels=_by_label([(labels(predicted), labels(gold)) for predicted, gold in pairs]),
    )


def _by_label(pairs: Sequence[tuple[frozenset[str], frozenset[str]]]) -> tuple[LabelScore, ...]:
    """Labels that occur, in the order of `LABELS`."""
    rows = []
    for label in LABELS:
        predicted = sum(label in p for p, _ in pairs)
        gold = sum(label in g for _, g in pairs)
        both = sum(label in p and label in g for p, g in pairs)
        if predicted or gold:
            rows.append(LabelScore(label, gold, predicted, both, *ratios(both, predicted, gold)))
    return tuple(rows)


def open_markdown(scores: Sequence[OpenScore]) -> str:
    """The table of means."""
    return markdown(
        (
            "model",
            "samples",
            "precision",
            "recall",
            "F1",
            "95 % interval of F1",
            "same set",
            "no answer read",
        ),
        [
            (
                one.model,
                str(one.count),
                f"{one.precision:.3f}",
                f"{one.recall:.3f}",
                f"{one.f1:.3f}",
                f"{one.low:.3f} to {one.high:.3f}",
                f"{one.exact:.3f}",
                str(one.from_text),
            )
            for one in scores
        ],
    )
