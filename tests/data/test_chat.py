import dataclasses
import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chestx_jax.data.chat import (
    MODES,
    RULES,
    ChatError,
    Parsed,
    match,
    messages,
    parse,
    predicted_option,
    split_steps,
    target,
    user_text,
)
from chestx_jax.data.schema import OPTIONS_MARK, Sample, question_text

SUFFIX = (
    "\nLet's think step by step. "
    "Enclose the reasoning within <think></think> and the answer within <answer></answer>."
)


def closed(*options: str, answer: str = "B", steps: tuple[str, ...] = ("Clear lungs.",)) -> Sample:
    question = question_text("Which finding is in this chest X-ray?", options)
    text = options["ABCDEF".index(answer)]
    return Sample("s", "1", None, "a", "single", ("x.png", "y.png"), question, options, answer, text, steps)


BINARY = closed("Yes", "No")
SINGLE = closed("edema", "no finding", "lung opacity", "lung lesion")
SETS = closed("edema, pneumonia", "edema, fracture", "fracture, pneumonia", "fracture, edema, pneumonia")
OPEN = Sample(
    "o",
    "1",
    None,
    "a",
    "anomaly",
    ("x.png",),
    "Which findings?",
    None,
    "edema, pneumonia",
    "edema, pneumonia",
)


def right(text: str, sample: Sample) -> bool:
    return match(parse(text), sample)


def test_the_prompt_is_the_published_one() -> None:
    assert user_text(BINARY, "answer") == BINARY.question
    assert user_text(BINARY, "reason") == BINARY.question + SUFFIX
    (turn,) = messages(BINARY, "reason")
    assert turn["role"] == "user"
    assert [part["type"] for part in turn["content"]] == ["image", "image", "text"]
    assert turn["content"][-1]["text"] == BINARY.question + SUFFIX


def test_the_target_is_the_published_one() -> None:
    sample = dataclasses.replace(BINARY, reason_steps=("The lungs are clear.", "So it is B."))
    assert target(sample, "reason") == "<think> The lungs are clear. So it is B. </think><answer> B </answer>"
    assert target(sample, "answer") == "<answer> B </answer>"
    assert target(OPEN, "answer") == "<answer> edema, pneumonia </answer>"


def test_what_cannot_be_rendered() -> None:
    with pytest.raises(ChatError, match="sample 's': field 'reason_steps': empty"):
        target(dataclasses.replace(BINARY, reason_steps=()), "reason")
    with pytest.raises(ChatError, match="field 'reason_steps': holds a <think>"):
        target(dataclasses.replace(BINARY, reason_steps=("a </think> b",)), "reason")
    with pytest.raises(ChatError, match="mode 'both'"):
        user_text(BINARY, "both")


# A full stop behind one of these ends no sentence (data/steps.py).
ABBREVIATIONS = (
    *("vs", "cf", "approx", "ca", "resp", "incl", "viz", "al", "dr", "mr", "mrs", "ms", "prof", "st"),
    *("jr", "sr", "fig", "figs", "eq", "inc", "pt", "pts", "hx", "tx"),
)
WORD = st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(
    lambda word: word not in ("no", "step", *ABBREVIATIONS)
)
SENTENCE = st.lists(WORD, min_size=2, max_size=6).map(lambda words: " ".join(words).capitalize() + ".")


@given(st.lists(SENTENCE, min_size=1, max_size=6), st.sampled_from([BINARY, SINGLE, SETS, OPEN]))
def test_what_is_rendered_is_parsed(steps: list[str], sample: Sample) -> None:
    sample = dataclasses.replace(sample, reason_steps=tuple(steps))
    rendered = target(sample, "reason")
    parsed = parse(rendered)
    assert (parsed.rule, parsed.answer) == ("strict", sample.answer) and match(parsed, sample)
    assert parsed.steps == sample.reason_steps
    assert tuple(rendered[start:end] for start, end in parsed.spans) == parsed.steps
    assert parse(target(sample, "answer")) == Parsed(sample.answer, (), "answer_only")


@given(
    st.text()
    | st.lists(
        st.sampled_from(
            [
                "<think>",
                "</think>",
                "<answer>",
                "</answer>",
                "A",
                " B",
                ") No",
                "\n",
                "assistant\n",
                "the answer is",
            ]
        )
    ).map("".join)
)
@example("<answer></answer>")
@example("*")
@example("\n**\n")
def test_any_text_can_be_parsed(text: str) -> None:
    parsed = parse(text)
    assert parsed.rule.removeprefix("chat_prefix+") in RULES
    assert parsed.answer is None or parsed.answer.strip()
    assert tuple(text[start:end] for start, end in parsed.spans) == parsed.steps
    for sample in (BINARY, SINGLE, OPEN):
        match(parsed, sample)


@given(st.text())
def test_steps_are_pieces_of_the_text_in_order(text: str) -> None:
    steps = split_steps(text)
    assert all(step.text == text[step.start : step.end] and step.text.strip() == step.text for step in steps)
    assert all(a.end <= b.start for a, b in pairwise(steps))


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        ("<think> a b. </think><answer> B </answer>", "B", "strict"),
        ("<think>\na\n</think>\n\n<answer>\nB) No\n</answer><|im_end|>\n", "B) No", "strict"),
        ("<answer>B</answer>", "B", "answer_only"),
        ("<think> a </think><answer>  </answer>", None, "empty_tag"),
        ("a <answer> B </answer>", "B", "loose_tags"),
        ("<think> a <answer> B </answer>", "B", "loose_tags"),
        ("<think>a</think><answer>B</answer> and more", "B", "loose_tags"),
        ("<answer>B</answer><answer> b. </answer>", "b.", "loose_tags"),
        ("<think>a</think><answer>A</answer><answer>B</answer>", None, "conflicting_tags"),
        ("<think>a</think><answer> B", "B", "unclosed_answer"),
        ("<think>a</think><answer>", None, "empty_tag"),
        ("The heart is fine. Therefore, the answer is B.", "B.", "answer_phrase"),
        ("**Final Answer: B) No**", "B) No", "answer_phrase"),
        ("Long.\n\nThus, the answer is:\n\nA) Yes, I see it.", "A) Yes, I see it.", "answer_phrase"),
        ("The answer is A. No, wait. The answer is B.", "B.", "answer_phrase"),
        ("(B) No", "(B) No", "letter_prefix"),
        (" b. ", "b.", "bare_letter"),
        ("No finding", "No finding", "bare_text"),
        ("First.\nSecond, so this is most consistent with **Option C: edema**.", "C", "closing_letter"),
        ("First.\nA) edema\nB) no finding", None, "none"),  # a list of options is no answer
        ("First.\nEither A) or B).", None, "none"),
        ("", None, "none"),
        ("x " * 300, None, "none"),
        ("system\nx\nuser\n<answer></answer>\nassistant\n<answer>B</answer>", "B", "chat_prefix+answer_only"),
        ("<|im_start|>assistant\nB", "B", "chat_prefix+bare_letter"),
    ],
)  # fmt: skip
def test_rules(text: str, answer: str | None, rule: str) -> None:
    parsed = parse(text)
    assert (parsed.answer, parsed.rule) == (answer, rule)


@pytest.mark.parametrize(
    "answer", ["B", "b", "(B)", "B)", "B.", "option B", "**B**", "No", "no.", "B) No", "(B) No", "B: no"]
)
def test_ways_to_be_right(answer: str) -> None:
    assert right(f"<answer> {answer} </answer>", BINARY)


WRONG = (
    "A",
    "C",
    "E",
    "Yes",
    "maybe",
    "",
    "AB",
    "not A",
    "no finding",
    "<answer>",
    "A) No",
    "B) Yes",
    "Yes and No",
)
TWO = ("A or B", "A, B", "A/B", "B or A", "A) Yes or B) No", "B) No, or A", "B) No, not A", "B (not A)")


@pytest.mark.parametrize("answer", WRONG + TWO)
def test_ways_to_be_wrong(answer: str) -> None:
    assert not right(f"<think> x </think><answer> {answer} </answer>", BINARY)


def test_an_option_is_named_by_its_whole_text_only() -> None:
    assert predicted_option("Lung opacity", SINGLE.options or ()) == "C"
    assert predicted_option("lung", SINGLE.options or ()) is None
    assert predicted_option("lung opacity, edema", SINGLE.options or ()) is None
    assert predicted_option("fracture, edema", SETS.options or ()) == "B"  # order does not matter
    assert predicted_option("B) fracture, edema", SETS.options or ()) == "B"
    assert predicted_option("A", ()) is None


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("edema, pneumonia", True),
        ("Pneumonia,Edema.", True),
        ("pneumonia; edema", True),
        ("pneumonia, and edema", True),
        ("edema", False),
        ("edema, pneumonia, fracture", False),
        ("edema or pneumonia", False),
        ("no edema, pneumonia", False),
        ("", False),
        ("A", False),
    ],
)
def test_open_answers_are_sets(answer: str, is_right: bool) -> None:
    assert right(f"<answer>{answer}</answer>", OPEN) is is_right


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("The heart is fine. The lungs are clear.", ["The heart is fine.", "The lungs are clear."]),
        ("A nodule of 1.5 cm is seen. It is round!", ["A nodule of 1.5 cm is seen.", "It is round!"]),
        ("Signs, e.g. Kerley lines, are absent. So B.", ["Signs, e.g. Kerley lines, are absent.", "So B."]),
        ("Loss of height at T8. The ribs are intact.", ["Loss of height at T8.", "The ribs are intact."]),
        ("Normal chest XXXX. No effusion.", ["Normal chest XXXX.", "No effusion."]),
        ("There are no XXXX of effusion.", ["There are no XXXX of effusion."]),
        ("The answer is B. Therefore no.", ["The answer is B.", "Therefore no."]),
        ("It lies ca. 3 cm up, see Fig. 2 below.", ["It lies ca. 3 cm up, see Fig. 2 below."]),
        ("Rib no. 3 is broken. It says no. The end.", ["Rib no. 3 is broken.", "It says no.", "The end."]),
        ("- The heart is large\n- No effusion.\n* Clear", ["The heart is large", "No effusion.", "Clear"]),
        ("1. Lungs: clear.\n2) Heart: large. It is 60%.", ["Lungs: clear.", "Heart: large.", "It is 60%."]),
        ("1. Lungs are clear. 2. Heart is large.", ["Lungs are clear.", "Heart is large."]),
        ("### Analysis\n\n**Lungs**:\n- clear\n\nFindings:\nNone seen.", ["clear", "None seen."]),
        ("**Heart:** It is large. **Lungs:** Clear.", ["**Heart:** It is large.", "**Lungs:** Clear."]),
        ("The line wraps\nhere and ends.\nNext.", ["The line wraps\nhere and ends.", "Next."]),
        ('He said "clear." Then left.', ['He said "clear."', "Then left."]),
        ("Is it edema? No... it is not.", ["Is it edema?", "No... it is not."]),
        ("A. Yes is wrong. B. No is right.", ["A. Yes is wrong.", "B. No is right."]),
        ("", []),
        (" \n***\n", []),
    ],
)  # fmt: skip
def test_steps(text: str, steps: list[str]) -> None:
    assert [step.text for step in split_steps(text)] == steps


def released(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def as_sample(record: dict) -> Sample:
    """A released record's question and answer, without the prompt's and the target's trimmings."""
    question = record["question"].removesuffix(SUFFIX)
    answer = record["answer"].replace("<answer>", "").replace("</answer>", "").strip()
    _, mark, listed = question.partition(OPTIONS_MARK)
    options = tuple(line[3:] for line in listed.split("\n")) if mark else None
    return Sample("r", "1", None, "r", "single", (), question, options, answer, answer)


def test_the_published_accuracies_come_out(shared_data: Path) -> None:
    hits: Counter[tuple[str, str]] = Counter()
    count: Counter[tuple[str, str]] = Counter()
    rules: Counter[str] = Counter()
    for record in released(shared_data / "radrbench" / "released_predictions.jsonl.gz"):
        if record["model"] not in ("ours_process_final_150", "chexagent3b"):
            continue
        parsed = parse(record["pred"])
        key = record["model"], record["task"].split("_test")[0]
        if "no_option" not in record["task"]:
            hits[key] += match(parsed, as_sample(record))
            count[key] += 1
        if key[0].startswith("ours"):
            rules[parsed.rule] += 1
    tasks = ("chexpert_binary", "rsna_binary", "chexpert_single", "chexpert_multi", "temporal_cls")
    accuracy = {m: [round(100 * hits[m, t] / count[m, t], 1) for t in tasks] for m, _ in count}
    assert accuracy["ours_process_final_150"] == [72.9, 79.3, 75.7, 78.7, 66.7]
    assert accuracy["chexagent3b"] == [72.6, 78.3, 73.5, 86.4, 66.7]
    assert rules == {"chat_prefix+strict": 1351}


def test_agreement_with_the_released_verdicts(shared_data: Path) -> None:
    """GPT-4o judged each closed answer right or wrong; two of its empty outputs count as right there."""
    records = released(shared_data / "radrbench" / "openi_judged.jsonl.gz")
    closed_ones = [record for record in records if record["task"] != "multi_no_option"]
    same = sum(
        (record["correct"] == "yes") == match(parse(record["pred"]), as_sample(record))
        for record in closed_ones
    )
    assert len(closed_ones) == 648
    assert same >= 640


@pytest.mark.parametrize("mode", MODES)
def test_real_samples_render_and_parse(shared_data: Path, mode: str) -> None:
    from chestx_jax.data import read_samples

    for sample in read_samples(shared_data / "radrbench" / "openi_samples.jsonl"):
        parsed = parse(target(sample, mode))
        assert parsed.rule == ("strict" if mode == "reason" else "answer_only")
        assert match(parsed, sample)
        if mode == "reason":
            assert "".join("".join(parsed.steps).split()) == "".join("".join(sample.reason_steps).split())
