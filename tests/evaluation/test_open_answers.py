"""Open answers: what counts as the same finding, and the sums."""

import pytest

from chestx_jax.evaluation.open_answers import concepts, labels, named, open_score, set_score
from tests.evaluation.samples import anomaly, binary, cases


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("pleural effusion, edema", "Edema, small left pleural effusions."),
        ("cardiomegaly", "enlarged heart"),
        ("no finding", "normal"),
        ("no finding", "No acute cardiopulmonary abnormality"),
        ("no finding", "The chest X-ray is normal."),
        ("bilateral pleural effusion and cardiomegaly", "cardiomegaly, pleural effusion"),
        ("Zork syndrome", "zork syndrome."),
    ],
)
def test_the_same_findings(one, two):
    assert concepts(one) == concepts(two) != frozenset()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("pneumonia", "no pneumonia"),
        ("edema", "edema, pneumonia"),
        ("consolidation", "lung opacity"),
        ("zork", "zorks"),
        ("no finding", "support devices"),
    ],
)
def test_different_findings(one, two):
    assert concepts(one) != concepts(two)


def test_a_denied_part_names_nothing_present():
    assert concepts("edema, no pneumonia") == {"edema", "no finding"}


def test_set_scores():
    score = set_score(frozenset("abc"), frozenset("bcde"))
    assert (score.precision, score.recall) == (pytest.approx(2 / 3), 0.5)
    assert score.f1 == pytest.approx(4 / 7)
    assert vars(set_score(frozenset(), frozenset("a"))) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_labels_carry_their_parents():
    assert labels({"consolidation"}) == {"consolidation", "lung opacity"}
    assert labels({"no finding"}) == {"no finding"}
    assert labels({"zork"}) == frozenset()


def test_the_whole_text_counts_where_no_answer_is_read():
    text = "Let us look.\nThere is a large left pleural effusion.\nNo pneumothorax.\nPlease correlate."
    (case,) = cases((anomaly(1, "pleural effusion"), text))
    assert case.answer is None
    assert named(case) == {"pleural effusion"}
    (silent,) = cases((anomaly(1, "pleural effusion"), ""))
    assert named(silent) == frozenset()


def test_means_and_labels_over_samples():
    judged = cases(
        (anomaly(1, "edema, pneumonia"), "<answer> edema </answer>"),
        (anomaly(2, "no finding"), "<answer> normal </answer>"),
        (anomaly(3, "fracture"), "<answer> edema, pneumothorax </answer>"),
        (anomaly(4, "edema"), ""),
        (binary(5), "<answer> A </answer>"),
    )
    score = open_score("m", judged)
    assert score is not None
    assert score.count == 4
    assert score.precision == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert score.recall == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert score.f1 == pytest.approx((2 / 3 + 1) / 4)
    assert score.low <= score.f1 <= score.high
    assert score.exact == 0.25
    assert score.from_text == 0
    edema = next(row for row in score.labels if row.label == "edema")
    assert (edema.gold, edema.predicted, edema.both) == (2, 2, 1)
    assert (edema.precision, edema.recall, edema.f1) == (0.5, 0.5, 0.5)
    assert [row.label for row in score.labels if row.label == "cardiomegaly"] == []


def test_no_open_questions_no_score():
    assert open_score("m", cases((binary(1), "<answer> A </answer>"))) is None
