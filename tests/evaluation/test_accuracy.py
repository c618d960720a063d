"""Accuracy, its interval, and the prior beside it."""

import numpy as np
import pytest

from chestx_jax.data.schema import Sample
from chestx_jax.evaluation.accuracy import accuracy_table, bootstrap_interval, judge


def sample(number: int, answer: str = "A", task: str = "binary") -> Sample:
    question = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
    return Sample(
        id=f"s{number}",
        study=str(number),
        patient=None,
        source="test",
        task=task,
        images=("x.png",),
        question=question,
        options=("Yes", "No"),
        answer=answer,
        answer_text="Yes" if answer == "A" else "No",
    )


def predicted(texts: dict[str, str]) -> dict[str, dict[str, str]]:
    return {id: {"id": id, "prediction": text} for id, text in texts.items()}


def test_a_missing_prediction_is_wrong_and_unparsed() -> None:
    cases = judge([sample(0), sample(1)], predicted({"s0": "<answer> A </answer>"}))
    assert [case.correct for case in cases] == [True, False]
    (row,) = accuracy_table(cases)
    assert (row.count, row.accuracy, row.unparsed) == (2, 0.5, 1)


def test_reasoning_and_rule_are_kept_with_the_case() -> None:
    text = "<think> The lungs are clear. There is no edema. </think><answer> B </answer>"
    (case,) = judge([sample(0, "B")], predicted({"s0": text}))
    assert case.steps == ("The lungs are clear.", "There is no edema.")
    assert (case.answer, case.rule, case.correct) == ("B", "strict", True)


def test_the_majority_prior_is_the_share_of_the_most_frequent_answer() -> None:
    cases = judge([sample(i, "A" if i < 3 else "B") for i in range(10)], {})
    assert accuracy_table(cases)[0].majority == 0.7


def test_several_tasks_get_a_last_row_whose_prior_knows_the_task() -> None:
    samples = [sample(i, "A", "binary") for i in range(4)] + [sample(9 + i, "B", "single") for i in range(4)]
    rows = accuracy_table(judge(samples, {}))
    assert [row.task for row in rows] == ["binary", "single", "all"]
    assert rows[-1].majority == 1.0 and rows[-1].count == 8


def test_the_interval_covers_the_mean_and_narrows_with_samples() -> None:
    few, many = (np.tile([1.0, 0.0, 1.0, 1.0], n) for n in (5, 500))
    low, high = bootstrap_interval(few, seed=0)
    assert low < 0.75 < high
    narrow = bootstrap_interval(many, seed=0)
    assert narrow[1] - narrow[0] < (high - low) / 5
    # the normal approximation is good at n = 2000
    assert narrow[0] == pytest.approx(0.75 - 1.96 * np.sqrt(0.75 * 0.25 / 2000), abs=3e-3)


def test_the_interval_is_the_same_every_time() -> None:
    values = np.array([1.0, 0.0, 0.0, 1.0, 1.0])
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
