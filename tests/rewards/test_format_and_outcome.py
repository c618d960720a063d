"""The format and the outcome reward."""

from typing import Any

import pytest

from chestx_jax.data.chat import target
from chestx_jax.rewards import reward
from tests.evaluation.samples import binary

EFFUSIONS = ("edema, pneumonia", "edema, fracture", "fracture, atelectasis", "pneumothorax, lung lesion")


def form(text: str) -> float | None:
    return reward("format")(prompts=["?"], completions=[text])[0]


def outcome(answer: str, options: tuple[str, ...] | None, right: str) -> float | None:
    given: dict[str, Any] = {"options": [options], "answer": [right]}
    return reward("outcome")(prompts=["?"], completions=[f"<answer> {answer} </answer>"], **given)[0]


def test_the_target_of_training_is_in_form() -> None:
    assert form(target(binary(1), "reason")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "<think>The heart is large.</think><answer>B</answer>",
        " <think>\nThe heart is large.\n</think>\n\n<answer>\nB\n</answer> \n",
        "<think> The heart is large. </think><answer> B </answer><|im_end|>",
    ],
)
def test_in_form(text: str) -> None:
    assert form(text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "<answer> B </answer>",
        "<think> The heart is large. </think>",
        "<think> </think><answer> B </answer>",
        "<think> . </think><answer> B </answer>",
        "<think> The heart is large. </think><answer> </answer>",
        "<think> The heart is large. <answer> B </answer>",
        "<think> The heart is large. </think><answer> B",
        "<answer> B </answer><think> The heart is large. </think>",
        "<think> One. </think><think> Two. </think><answer> B </answer>",
        "<think> One. </think><answer> A </answer><answer> B </answer>",
        "<think> One. <think> Two. </think></think><answer> B </answer>",
        "<think> One. <answer> A </answer></think><answer> B </answer>",
        "<think> One. </think> So: <answer> B </answer>",
        "Well. <think> One. </think><answer> B </answer>",
        "<think> One. </think><answer> B </answer> I am sure.",
        "<THINK> One. </THINK><ANSWER> B </ANSWER>",
        "user\nWhat?\nassistant\n<think> One. </think><answer> B </answer>",
    ],
)
def test_out_of_form(text: str) -> None:
    assert form(text) == 0


@pytest.mark.parametrize("answer", ["B", "(B)", "B) No", "b.", "No", "no"])
def test_an_option_by_letter_or_text(answer: str) -> None:
    assert outcome(answer, ("Yes", "No"), "B") == 1
    assert outcome(answer, ("Yes", "No"), "A") == 0


@pytest.mark.parametrize("answer", ["A or B", "A) Yes B) No", "A, B", "Yes or no", "C", "maybe", ""])
def test_no_option_or_two_earn_nothing(answer: str) -> None:
    assert [outcome(answer, ("Yes", "No"), right) for right in "AB"] == [0, 0]


def test_tags_that_disagree_earn_nothing() -> None:
    texts = ["<answer> A </answer><answer> B </answer>"] * 2
    assert reward("outcome")(
        prompts=texts, completions=texts, options=[("Yes", "No")] * 2, answer=["A", "B"]
    ) == [0, 0]


def test_several_findings_earn_their_f1() -> None:
    assert [outcome(letter, EFFUSIONS, "A") for letter in "ABCD"] == [1, 0.5, 0, 0]
    assert outcome("pneumonia, edema", EFFUSIONS, "A") == 1
    assert outcome("edema, pneumonia, fracture, atelectasis", EFFUSIONS, "A") == 0


def test_open_answers_earn_their_f1() -> None:
    gold = "edema, pleural effusion"
    assert outcome("pleural effusions, edema", None, gold) == 1
    assert outcome("edema", None, gold) == pytest.approx(2 / 3)
    assert outcome("edema, pneumothorax, fracture, pleural effusion", None, gold) == pytest.approx(2 / 3)
    assert outcome("no finding", None, gold) == 0
    assert outcome("The chest X-ray is normal.", None, "no finding") == 1


@pytest.mark.parametrize("answer", ["edema or pneumonia", "edema? pneumonia?"])
def test_a_hedged_open_answer_earns_nothing(answer: str) -> None:
    assert outcome(answer, None, "edema") == 0


def test_conversational_completions_are_read() -> None:
    said = [{"role": "assistant", "content": "<think> One. </think><answer> B </answer>"}]
    given: dict[str, Any] = {"options": [("Yes", "No")], "answer": ["B"]}
    assert reward("format")(prompts=["?"], completions=[said]) == [1]
    assert reward("outcome")(prompts=["?"], completions=[said], **given) == [1]
