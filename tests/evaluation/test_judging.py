"""RadRScore in an evaluation: a language model asked over HTTP, or judgments that are there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from chestx_jax.data import read_samples
from chestx_jax.data.schema import Sample
from chestx_jax.evaluation.evaluate import evaluate_models
from chestx_jax.evaluation.judging import LanguageModelJudge, RecordedJudge, judged_models
from chestx_jax.evaluation.radrscore import read_judged
from chestx_jax.evaluation.records import RecordError
from chestx_jax.llm import Client, Endpoint
from tests.evaluation.samples import anomaly, binary, cases, draw, said
from tests.llm.server import Say, ScriptedServer, first_of_each

SAID = "<think> There is a left pleural effusion. No edema. </think><answer> A </answer>"
RECORD = {"id": "binary-1", "model": "x/y", "task": "single", "correct": "no", "pred": "text\n"}


def asked(server: ScriptedServer, cache: Path) -> LanguageModelJudge:
    endpoint = Endpoint(server.url, "some-judge", timeout=5.0, max_retries=1, first_wait=0.01)
    return LanguageModelJudge(Client(endpoint, cache))


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    bare = dataclasses.replace(binary(2, root=tmp_path), reason_steps=())
    drawn = [binary(1, root=tmp_path), bare, anomaly(3, "edema", root=tmp_path)]
    for sample in drawn:
        draw(sample)
    return drawn


def test_a_language_model_judges_and_its_judgments_can_be_read_again(
    samples: list[Sample], tmp_path: Path
) -> None:
    models = {"m": {sample.id: said(SAID) for sample in samples}}
    out = tmp_path / "out"
    with ScriptedServer(first_of_each).running() as server:
        evaluate_models(samples, models, out, cases=1, judge=asked(server, out / "judge"))
        calls = len(server.bodies)
        assert calls > 0
        evaluate_models(samples, models, out, cases=1, judge=asked(server, out / "judge"))
        assert len(server.bodies) == calls  # what was answered is not asked again
    scores = json.loads((out / "scores.json").read_text())
    assert scores["judge"] == "judged by some-judge"
    rows = {row["task"]: row for row in scores["radrscore"]}
    assert {task: row["n"] for task, row in rows.items()} == {"binary": 1, "anomaly": 1, "all": 2}
    assert rows["all"]["score"] == pytest.approx(0.5)
    page = (out / "report.html").read_text()
    assert "RadRScore, judged by some-judge" in page and "Parts of the RadRScore" in page
    records = read_judged(out / "judged.jsonl")
    assert [record["id"] for record in records] == ["binary-1", "anomaly-3"]
    again = evaluate_models(
        samples, judged_models(records), tmp_path / "again", cases=1, judge=RecordedJudge("file", records)
    )
    assert [row.score for row in again.radrscore] == [row["score"] for row in scores["radrscore"]]


def test_what_a_judge_spoils_is_counted_and_told_of_its_case(samples: list[Sample], tmp_path: Path) -> None:
    def spoilt(number: int, body: dict[str, Any]) -> Say:
        effectiveness = "effective" in json.dumps(body["response_format"])
        about_edema = "Price" in body["messages"][-1]["content"]
        return Say("{") if effectiveness and about_edema else first_of_each(number, body)

    priced = dataclasses.replace(samples[0], id="priced", reason_steps=("Price of edema.",))
    models = {"m": {sample.id: said(SAID) for sample in (samples[0], priced)}}
    with ScriptedServer(spoilt).running() as server:
        judge = asked(server, tmp_path / "judge")
        results = evaluate_models([samples[0], priced], models, tmp_path / "out", cases=1, judge=judge)
    (row,) = results.radrscore
    assert (row.n, row.invalid) == (1, 1)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("malformed: efficiency") == 1


def test_a_dry_run_asks_nothing(samples: list[Sample], tmp_path: Path) -> None:
    with ScriptedServer(first_of_each).running() as server:
        estimate = asked(server, tmp_path).estimate({"m": cases((samples[0], SAID))})
        assert estimate.to_ask == 5 and not server.bodies


def test_judged_records_bring_their_predictions() -> None:
    models = judged_models([RECORD, {**RECORD, "model": "z", "pred": ""}])
    assert models == {
        "x/y": {"binary-1": {"id": "binary-1", "prediction": "text\n"}},
        "z": {"binary-1": {"id": "binary-1", "prediction": ""}},
    }
    with pytest.raises(RecordError, match="answers it twice"):
        judged_models([RECORD, RECORD])
    with pytest.raises(RecordError, match="'pred'"):
        judged_models([{**RECORD, "pred": None}])


def test_the_released_judgments_on_a_page(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "radrbench"
    records = read_judged(root / "openi_judged.jsonl.gz")
    wanted = [s for s in read_samples(root / "openi_samples.jsonl") if s.task == "multiple"][:10]
    results = evaluate_models(
        wanted, judged_models(records), tmp_path, cases=2, judge=RecordedJudge("released.jsonl", records)
    )
    assert {(row.task, row.n + row.invalid) for row in results.radrscore} <= {("multiple", 10)}
    assert [one.count for one in results.agreement] == [row.n for row in results.radrscore]
    page = (tmp_path / "report.html").read_text()
    assert all(sample.id in page for sample in wanted) and "RadRScore, judgments of released.jsonl" in page
