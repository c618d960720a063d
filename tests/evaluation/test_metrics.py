"""Text metrics against hand-made values, calibration, and the table beside shortcuts."""

import builtins
import math

import pytest

from chestx_jax.evaluation.calibration import calibrate, probability
from chestx_jax.evaluation.comparison import compare, score_markdown, score_notes
from chestx_jax.evaluation.text_metrics import MetricsError, text_score
from tests.evaluation.samples import anomaly, binary, cases


def test_equal_texts_score_full():
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    sample = binary(1)
    score = text_score(
        "m", cases((sample, f"<think> {' '.join(sample.reason_steps)} </think><answer> A </answer>"))
    )
    assert score is not None
    assert score.bleu == pytest.approx(100)
    assert (score.rouge_1, score.rouge_2, score.rouge_l) == (1, 1, 1)
    assert "tok:13a" in score.signature


def test_rouge_by_hand_and_silence_counts():
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    sample = binary(1, reason_steps=("the lungs are clear today",))
    judged = cases(
        (sample, "<think> the lungs look clear </think><answer> A </answer>"),
        (binary(2, reason_steps=("the heart is big",)), "<answer> A </answer>"),
        (binary(3, reason_steps=()), "<think> unused </think><answer> A </answer>"),
    )
    score = text_score("m", judged)
    assert score is not None
    assert score.count == 2
    # the, lung, clear of 4 predicted and 5 gold words; one shared pair of 3 and 4
    assert score.rouge_1 == pytest.approx(2 * 3 / (4 + 5) / 2)
    assert score.rouge_2 == pytest.approx(2 * 1 / (3 + 4) / 2)
    assert score.rouge_l == score.rouge_1


def test_without_the_packages_the_message_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name == "sacrebleu":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MetricsError, match=r"pip install 'chestx_jax\[metrics\]'"):
        text_score("m", cases((binary(1), "x")))


def rows(pairs, p):
    return {
        sample.id: {"id": sample.id, "prediction": text, "log_probability": math.log(p)}
        for sample, text in pairs
    }


def test_calibration_error_by_hand():
    sure = [(binary(i, "A" if i < 18 else "B"), "<answer> A </answer>") for i in range(20)]  # 90 % right
    doubtful = [(binary(20 + i, "A" if i < 8 else "B"), "<answer> A </answer>") for i in range(20)]  # 40 %
    score = calibrate("m", cases(*sure, *doubtful), rows(sure, 0.95) | rows(doubtful, 0.62))
    assert score is not None
    assert score.count == 40
    assert [count for *_, count in score.bins] == [20, 20]
    assert score.error == pytest.approx((abs(0.9 - 0.95) + abs(0.4 - 0.62)) / 2)


@pytest.mark.parametrize(
    ("sample", "text", "row"),
    [
        (binary(1), "<think> Clear. </think><answer> A </answer>", {"log_probability": -1.0}),
        (anomaly(1, "edema"), "<answer> edema </answer>", {"log_probability": -1.0}),
        (binary(1), "<answer> A </answer>", {}),
        (binary(1), "<answer> A </answer>", None),
        (binary(1), "<answer> A </answer>", {"log_probability": 0.5}),
    ],
)
def test_no_probability_of_an_answer(sample, text, row):
    (case,) = cases((sample, text))
    assert probability(case, row) is None


def test_few_answers_are_not_calibrated():
    pairs = [(binary(i), "<answer> A </answer>") for i in range(19)]
    assert calibrate("m", cases(*pairs), rows(pairs, 0.5)) is None


def test_a_beaten_model_is_told():
    samples = [binary(i, "A" if i < 15 else "B") for i in range(20)]
    poor = cases(*((sample, "<answer> B </answer>") for sample in samples))
    good = cases(*((sample, f"<answer> {sample.answer} </answer>") for sample in samples))
    table = compare({"poor": poor, "good": good})
    assert [(row.model, row.accuracy, row.beaten) for row in table] == [
        ("poor", 0.25, True),
        ("good", 1.0, False),
    ]
    assert {row.majority for row in table} == {0.75}
    assert score_notes(table) == [
        "binary: the majority prior gets 75.0 % right without the image; poor 25.0 %."
    ]
    assert score_markdown(table).count("|  ! |") + score_markdown(table).count("| ! |") == 1


def test_open_questions_are_never_called_beaten():
    samples = [anomaly(i, "edema") for i in range(5)]
    table = compare({"m": cases(*((sample, "<answer> fracture </answer>") for sample in samples))})
    assert [row.beaten for row in table] == [False]


def test_all_comes_last_and_tasks_stay_together():
    pairs = [(binary(i), "<answer> A </answer>") for i in range(4)] + [(anomaly(9, "edema"), "x")]
    table = compare({"one": cases(*pairs), "two": cases(*pairs)})
    assert [(row.task, row.model) for row in table] == [
        (task, model) for task in ("binary", "anomaly", "all") for model in ("one", "two")
    ]
