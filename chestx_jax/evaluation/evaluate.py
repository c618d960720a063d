"""From samples and predictions to tables and a picture sheet."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chestx_jax.data.schema import Sample
from chestx_jax.evaluation.accuracy import Accuracy, Case, accuracy_table, judge
from chestx_jax.evaluation.predictions import PredictionError
from chestx_jax.evaluation.sheet import write_sheet
from chestx_jax.evaluation.tables import accuracy_markdown, write_scores

log = logging.getLogger(__name__)


def evaluate(
    samples: Sequence[Sample], predictions: Mapping[str, Mapping[str, Any]], out: Path, *, cases: int
) -> list[Accuracy]:
    """Write scores.md, scores.json and cases.png under `out`; print the table and return its rows.

    Raises:
      PredictionError: when no prediction belongs to a sample.
    """
    missing = [sample.id for sample in samples if sample.id not in predictions]
    if len(missing) == len(samples):
        raise PredictionError("none of the predictions has the id of a sample; is it another data set?")
    judged = judge(samples, predictions)
    rows = accuracy_table(judged)
    table = accuracy_markdown(rows)
    rules = dict(Counter(case.rule for case in judged).most_common())
    write_scores(
        out, "Accuracy", table, {"accuracy": rows, "answer_rules": rules, "without_prediction": missing}
    )
    write_sheet(pick(judged, cases), out / "cases.png")
    print(table)
    if missing:
        log.warning("%d of %d samples have no prediction and count as wrong", len(missing), len(samples))
    print(f"\nscores.md, scores.json and cases.png are in {out}")
    return rows


def pick(judged: Sequence[Case], count: int, seed: int = 0) -> list[Case]:
    """`count` cases for the sheet: drawn at random, the tasks in turn, in the order of the tasks."""
    rng = np.random.default_rng(seed)
    by_task: dict[str, list[Case]] = {}
    for i in rng.permutation(len(judged)):
        by_task.setdefault(judged[i].sample.task, []).append(judged[i])
    queues = [by_task[task] for task in dict.fromkeys(case.sample.task for case in judged)]
    longest = max(map(len, queues))
    turns = [queue[i] for i in range(longest) for queue in queues if i < len(queue)][:count]
    order = [case.sample.task for case in judged]
    return sorted(turns, key=lambda case: order.index(case.sample.task))
