"""Aggregation on hand-made and on the released judgments; the judge against a scripted server."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from chestx_jax.data.schema import Sample
from chestx_jax.evaluation.accuracy import judge as judge_accuracy
from chestx_jax.evaluation.radrscore import (
    AggregateError,
    JudgeError,
    Judgment,
    Malformed,
    aggregate,
    estimate_judging,
    judge_cases,
    judgment,
    read_judged,
    score_markdown,
)
from chestx_jax.evaluation.records import RecordError
from chestx_jax.llm import Client, Endpoint
from tests.llm.server import Say, ScriptedServer, first_of_each


def record(**changes: Any) -> dict[str, Any]:
    finding = {"observation": "heart", "status": "normal"}
    return {
        "id": "1",
        "model": "m",
        "task": "single",
        "correct": "yes",
        "gt_key_finding": {"key_conclusion": [finding] * 4},
        "pred_key_finding": {"key_conclusion": [finding] * 2},
        "recall_res": {"recalled_count": 1},
        "precision_res": {"correct_count": 1},
        "efficiency": {"effective_count": 3, "ineffective_count": 1},
    } | changes


def test_the_components_and_their_mean() -> None:
    one = judgment(record())
    assert isinstance(one, Judgment)
    assert (one.factuality, one.completeness, one.effectiveness) == (0.5, 0.25, 0.75)
    assert one.score == 0.5


def test_a_zero_denominator_scores_0_and_stays() -> None:
    empty = record(
        id="2",
        pred_key_finding={"key_conclusion": []},
        recall_res={"recalled_count": 0},
        precision_res={"correct_count": 0},
        efficiency={"effective_count": 0, "ineffective_count": 0},
    )
    (row,) = aggregate([record(), empty])
    assert (row.n, row.invalid, row.score) == (2, 0, 0.25)
    assert row.as_published == row.score


@pytest.mark.parametrize(
    ("changes", "problem", "published"),
    [
        ({"gt_key_finding": {"reason_steps": "Error"}}, "gt_key_finding", 0.5),
        ({"gt_key_finding": {"key_conclusions": []}}, "gt_key_finding", 0.5),
        ({"pred_key_finding": "Error"}, "pred_key_finding", 0.5 + 0.25 / 3),
        ({"efficiency": {"reason_steps": "Error"}}, "effective_count", 0.5 + 0.75 / 3),
        ({"efficiency": {"effective_count": "3", "ineffective_count": 1}}, "effective_count", 0.5 + 0.75 / 3),
        ({"precision_res": {"correct_count": 3}}, "above 1", (0.5 + (1.5 + 0.25 + 0.75) / 3) / 2),
        ({"recall_res": {"recalled_count": -1}}, "recalled_count", 0.5),
    ],
)
def test_a_malformed_judgment_is_counted_and_left_out(
    changes: dict[str, Any], problem: str, published: float
) -> None:
    bad = record(id="2", **changes)
    one = judgment(bad)
    assert isinstance(one, Malformed) and any(problem in text for text in one.problems)
    (row,) = aggregate([record(), bad])
    assert (row.n, row.invalid, row.score) == (1, 1, 0.5)
    assert row.as_published == pytest.approx(published)


def test_rows_by_model_and_task_and_what_cannot_be_aggregated() -> None:
    rows = aggregate([record(), record(model="other"), record(task="multi")])
    assert [(row.model, row.task) for row in rows] == [("m", "single"), ("other", "single"), ("m", "multi")]
    with pytest.raises(AggregateError, match="judged twice"):
        aggregate([record(), record()])
    with pytest.raises(AggregateError, match="all 1 judgments are malformed"):
        aggregate([record(efficiency={})])
    with pytest.raises(RecordError, match="'task'"):
        aggregate([record(task=None)])


def test_a_bad_file_is_named_with_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    path.write_text(json.dumps(record()) + "\n" + json.dumps(record(correct=1)) + "\n")
    with pytest.raises(RecordError, match=r"judged\.jsonl:2: field 'correct'"):
        read_judged(path)
    path.write_text("\n")
    with pytest.raises(RecordError, match="no records"):
        read_judged(path)


# Over all released records the scores are 0.570 / 0.550 (single) and 0.424 / 0.468 (multi). The file holds
# about 70 % of them, so it has figures of its own: (by our rules, by the authors' sums, malformed).
RELEASED = {
    ("chestx-reasoner-7b", "single"): (0.564, 0.573, 6),
    ("gpt-4o", "single"): (0.558, 0.558, 2),
    ("chestx-reasoner-7b", "multi"): (0.425, 0.425, 0),
    ("gpt-4o", "multi"): (0.442, 0.450, 6),
    ("gpt-4o", "multi_no_option"): (0.368, 0.368, 0),
}
PUBLISHED = {
    ("chestx-reasoner-7b", "single"): 0.570,
    ("gpt-4o", "single"): 0.550,
    ("chestx-reasoner-7b", "multi"): 0.424,
    ("gpt-4o", "multi"): 0.468,
}


def test_the_released_judgments(shared_data: Path) -> None:
    rows = aggregate(read_judged(shared_data / "radrbench" / "openi_judged.jsonl.gz"))
    found = {(r.model, r.task): (round(r.score, 3), round(r.as_published, 3), r.invalid) for r in rows}
    assert found == RELEASED
    for row in rows:
        low, high = row.intervals["score"]
        assert low < row.score < high
        if (row.model, row.task) in PUBLISHED:
            assert low < PUBLISHED[row.model, row.task] < high
    assert "0.564 (0.53" in score_markdown(rows)


SAMPLE = Sample(
    id="s1",
    study="s1",
    patient=None,
    source="test",
    task="single",
    images=("a.png",),
    question="Which finding is in this chest X-ray? Options:\nA) edema\nB) fracture",
    options=("edema", "fracture"),
    answer="B",
    answer_text="fracture",
    reason_steps=("The ribs are broken.", "There is no edema.", "The heart is normal."),
    report="FINDINGS: Rib fracture. Price $5.",
)
GOOD = "<think> I look at the heart. There is no edema. A rib is fractured. </think><answer> B </answer>"


def client(server: ScriptedServer, cache: Path) -> Client:
    return Client(Endpoint(server.url, "judge", timeout=5.0, max_retries=1, first_wait=0.01), cache)


def predictions(*texts: str) -> tuple[list[Sample], dict[str, dict[str, str]]]:
    samples = [dataclasses.replace(SAMPLE, id=f"s{i}") for i in range(len(texts))]
    return samples, {f"s{i}": {"prediction": text} for i, text in enumerate(texts)}


def test_the_judge_makes_records_of_the_released_shape(tmp_path: Path, shared_data: Path) -> None:
    cases = judge_accuracy(*predictions(GOOD))
    with ScriptedServer(first_of_each).running() as server:
        asked = client(server, tmp_path)
        assert estimate_judging(cases, asked).to_ask == 5 and not server.bodies
        (made,) = judge_cases(cases, "ours", asked)
        assert len(server.bodies) == 5
        judge_cases(cases, "ours", client(server, tmp_path))
        assert len(server.bodies) == 5  # a rerun pays for nothing
    assert any("Price $5." in body["messages"][-1]["content"] for body in server.bodies)
    assert made["recall_res"]["recalled_count"] == made["precision_res"]["correct_count"] == 1
    assert made["efficiency"]["effective_steps"] == ["I look at the heart."]
    (row,) = aggregate([made])
    assert row.score == pytest.approx((1 / 3 + 1 / 3 + 1 / 3) / 3) and row.accuracy == 1.0
    released = read_judged(shared_data / "radrbench" / "openi_judged.jsonl.gz")[0]
    assert made.keys() == released.keys()
    for name in ("gt_key_finding", "pred_key_finding", "recall_res", "precision_res", "efficiency"):
        assert made[name].keys() == released[name].keys()


def test_gold_findings_are_asked_once_for_all_models_and_nothing_for_an_empty_answer(tmp_path: Path) -> None:
    with ScriptedServer(first_of_each).running() as server:
        asked = client(server, tmp_path)
        judge_cases(judge_accuracy(*predictions(GOOD)), "one", asked)
        before = len(server.bodies)
        (made,) = judge_cases(judge_accuracy(*predictions("<answer> B </answer>")), "two", asked)
        assert len(server.bodies) == before
    (row,) = aggregate([made])
    assert (row.n, row.score, row.accuracy) == (1, 0.0, 1.0)


def test_a_judge_that_fails_at_a_part_is_counted(tmp_path: Path) -> None:
    def script(number: int, body: dict[str, Any]) -> Say:
        text = body["messages"][-1]["content"]
        if "bears it out" in text and "A second rib" in text:
            return Say('{"1": "perhaps"}')
        if "moves the reasoning forward" in text and "A third rib" in text:
            return Say("Error")
        return first_of_each(number, body)

    cases = judge_accuracy(
        *predictions(GOOD, GOOD.replace("A rib", "A second rib"), GOOD.replace("A rib", "A third rib"))
    )
    with ScriptedServer(script).running() as server:
        asked = client(server, tmp_path)
        made = judge_cases(cases, "ours", asked)
    assert made[1]["precision_res"] == {"error": "correct: breaks the schema"}
    assert made[2]["efficiency"] == {"error": "effective: not JSON"}
    (row,) = aggregate(made)
    assert (row.n, row.invalid) == (1, 2) and asked.counts.invalid == 2


def test_what_cannot_be_judged_is_named(tmp_path: Path) -> None:
    nobody = Client(Endpoint("http://127.0.0.1:1/v1", "judge"), tmp_path / "cache")
    for field in ("reason_steps", "report"):
        bare = dataclasses.replace(SAMPLE, **{field: type(getattr(SAMPLE, field))()})
        with pytest.raises(JudgeError, match=f"'s1': field '{field}'"):
            judge_cases(judge_accuracy([bare], {}), "m", nobody)
    cases = judge_accuracy(*predictions(GOOD))
    with pytest.raises(JudgeError, match=r"system\.txt is missing"):
        estimate_judging(cases, nobody, prompts=tmp_path)
    for name in ("system", "extract", "recall", "precision", "effectiveness"):
        (tmp_path / f"{name}.txt").write_text("$gold" if name == "extract" else "words")
    with pytest.raises(JudgeError, match=r"prompt 'extract'.*steps"):
        estimate_judging(cases, nobody, prompts=tmp_path)
