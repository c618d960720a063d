"""The published accuracy table from the released predictions."""

import json
from pathlib import Path
from typing import Any

import pytest

from chestx_jax.evaluation.records import RecordError
from chestx_jax.evaluation.released import published_rule, read_released, released_table
from chestx_jax.evaluation.released_report import released_markdown, released_notes

QUESTION = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
LEAK = (
    "system\nYou are a helpful assistant.\nuser\n.. within <think></think> and the answer within "
    "<answer></answer>.\nassistant\n"
)


def record(**changes: Any) -> dict[str, Any]:
    fixed = {"model": "ours_x", "task": "t_test_option", "index": 0, "question": QUESTION}
    return fixed | {"answer": "B", "answer_content": "No", "pred": "<answer> B </answer>"} | changes


def written(tmp_path: Path, *records: Any) -> Path:
    path = tmp_path / "released.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


# Accuracy in % as published: binary, rsna, single, multiple, temporal.
PUBLISHED = {
    "ours_process_final_150": (72.9, 79.3, 75.7, 78.7, 66.7),
    "chexagent3b": (72.6, 78.3, 73.5, 86.4, 66.7),
    "qwenvl72b": (57.1, 49.3, 66.9, 69.9, 32.3),
    "qwenvl7b": (0.0, 0.0, 0.0, 0.0, 0.0),
}
TASKS = (
    "chexpert_binary_test_option",
    "rsna_binary_test_option",
    "chexpert_single_test_option",
    "chexpert_multi_test_option",
    "temporal_cls_test_option",
)


def test_the_published_table_comes_out_again(shared_data: Path) -> None:
    rows = released_table(shared_data / "radrbench" / "released_predictions.jsonl.gz")
    table = {(row.model, row.task): row for row in rows}
    assert len(rows) == 54 and sum(row.count for row in rows) == 12440
    for model, accuracies in PUBLISHED.items():
        for task, expected in zip(TASKS, accuracies, strict=True):
            assert round(100 * (table[model, task].published or 0.0), 1) == expected, (model, task)
    assert all(table["qwenvl7b", task].counted == 0 for task in TASKS)
    assert round(100 * table["qwenvl7b", TASKS[0]].strict, 1) == 61.0
    judged = {row.model for row in rows if row.published is None and "no_option" not in row.task}
    assert judged == {"deepseek", "gpt4o", "llavanext", "meddr", "radfm"}
    assert table["gpt4o", TASKS[0]].empty == 317 and table["gpt4o", TASKS[4]].empty == 62
    assert table["ours_process_final_150", TASKS[0]].leaked == 317
    ours = [table["ours_process_final_150", task] for task in TASKS]
    assert [row.beaten for row in ours] == [True, False, True, True, False]
    assert [round(100 * row.shortcut, 1) for row in ours] == [81.7, 50.0, 77.9, 89.3, 46.3]
    text = released_markdown(rows)
    assert "gpt4o, chexpert_binary: 317 of 317 predictions are empty" in text
    assert (
        "ours_process_final_150, chexpert_multi: option order without the image 89.3 %, the model 78.7 %"
        in text
    )


@pytest.mark.parametrize(
    ("model", "answer", "pred", "verdict"),
    [
        ("ours_x", "<answer> B </answer>", LEAK + "<think> x </think><answer> b </answer>", True),
        ("ours_x", "<answer> B </answer>", LEAK + "<answer> A </answer>", False),
        ("ours_x", "<answer> B </answer>", LEAK + "B", None),
        (
            "ours_x",
            "<answer> B </answer>",
            "<answer>\nB\n</answer>",
            None,
        ),  # the rule's dot stops at a line's end
        ("ours_x", "B", "<answer> B </answer>", None),
        ("qwenvl72b", "B", "<answer>\nB) No\n</answer>", True),
        ("qwenvl72b", "B", "<answer>A) No Bleed</answer>", True),  # a capital B somewhere
        ("qwenvl72b", "B", "<answer>B, never closed", True),
        ("qwenvl72b", "B", "It is A.", False),
        ("qwenvl72b", "B", "", None),
        ("qwenvl7b", "<answer> B </answer>", LEAK + "<answer>B</answer>", None),
        ("chexagent3b", "B", "(B) No", True),
        ("chexagent3b", "B", "(b) no", False),
        ("chexagent3b", "B", "", None),
    ],
)
def test_the_authors_rules(tmp_path: Path, model: str, answer: str, pred: str, verdict: bool | None) -> None:
    (one,) = read_released(written(tmp_path, record(model=model, answer=answer, pred=pred)))
    assert published_rule(one) is verdict


def test_a_list_of_sentences_is_one_prediction(tmp_path: Path) -> None:
    (one,) = read_released(written(tmp_path, record(pred=["First.", "B"])))
    assert one.pred == "First.\nB"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (record(model=None), "field 'model'"),
        (record(pred=3), "field 'pred'"),
        (record(pred=[1]), "field 'pred'"),
        (record(index="0"), "field 'index'"),
        (record(index=0), "field 'index'.*already"),
        (record(index=1, answer="C"), "field 'answer'"),
        (record(index=1, answer="<answer> </answer>"), "field 'answer'"),
        (
            record(index=1, question="Which findings are in this chest X-ray?", answer=" "),
            "field 'answer' is empty",
        ),
        (record(index=1, question="What? Options:\nB) Yes\nA) No"), "field 'question'"),
    ],
)
def test_a_bad_record_is_named_with_line_and_field(tmp_path: Path, bad: Any, told: str) -> None:
    with pytest.raises(RecordError, match=rf"released\.jsonl:2: .*{told}"):
        read_released(written(tmp_path, record(), bad))


def test_a_file_without_records(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no records"):
        released_table(written(tmp_path))


def test_any_task_of_that_shape_works(tmp_path: Path) -> None:
    question = "Is the tube well placed? Options:\nA) yes\nB) no\nC) cannot say"
    records = [record(task="tubes", index=i, question=question, answer="C", pred="C") for i in range(3)]
    open_one = record(
        task="open", question="Which findings are in this chest X-ray?", answer="edema", pred="edema"
    )
    rows = released_table(written(tmp_path, *records, open_one))
    assert [(row.task, row.strict, row.unpublishable) for row in rows] == [
        ("open", 1.0, "RaTEScore"),
        ("tubes", 1.0, ""),
    ]
    assert rows[1].published == 0.0 and rows[1].counted == 0  # "ours" rule: no tag, no verdict
    assert any("reads an answer in 0 of 3" in note for note in released_notes(rows))


def test_judged_models_are_not_faked(tmp_path: Path) -> None:
    (row,) = released_table(written(tmp_path, record(model="radfm")))
    assert row.published is None and row.unpublishable == "judged by GPT-4o"
    assert "| radfm |" in released_markdown([row]) and "judge" in released_markdown([row])
