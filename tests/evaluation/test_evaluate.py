"""From samples and predictions to the files, in one go."""

import gzip
import json
import re
from dataclasses import replace

import pytest

from chestx_jax.evaluation.evaluate import evaluate, evaluate_models, evaluate_released, read_models
from chestx_jax.evaluation.offline_scores import score_offline
from chestx_jax.evaluation.page.cases import items
from chestx_jax.evaluation.page.pictures import Album
from chestx_jax.evaluation.predictions import PredictionError
from tests.evaluation.samples import anomaly, binary, cases, draw, said

SAID = (
    "<think> There is a left pleural effusion. The heart is not enlarged. We look at the bones. </think>"
    "<answer> A </answer>"
)


@pytest.fixture
def samples(tmp_path):
    drawn = [binary(1, root=tmp_path), binary(2, "B", root=tmp_path), anomaly(3, "edema", root=tmp_path)]
    for sample in drawn:
        draw(sample)
    return drawn


def test_files_and_numbers(samples, tmp_path, capsys):
    models = {
        "one": {
            "binary-1": said(SAID),
            "binary-2": said(SAID),
            "anomaly-3": said("<answer> edema </answer>"),
        },
        "two": {"binary-1": said("<answer> B </answer>")},
    }
    out = tmp_path / "out"
    evaluate_models(samples, models, out, cases=3)
    assert {path.name for path in out.iterdir()} == {"report.html", "scores.json", "scores.md", "cases.png"}
    scores = json.loads((out / "scores.json").read_text())
    accuracy = {(row["model"], row["task"]): row["accuracy"] for row in scores["accuracy"]}
    assert (
        accuracy["one", "binary"] == 0.5 and accuracy["one", "anomaly"] == 1 and accuracy["two", "all"] == 0
    )
    assert scores["without_prediction"] == {"one": [], "two": ["binary-2", "anomaly-3"]}
    assert scores["open_answers"][0]["f1"] == 1
    assert {row["task"] for row in scores["offline"]} == {"binary", "anomaly", "all"}
    page, table = (out / "report.html").read_text(), (out / "scores.md").read_text()
    for words in ("two: 2 of 3 samples have no prediction and count as wrong.", "ffline RadRScore"):
        assert words in page and words in table
    assert page.count("data:image/jpeg") == 3
    assert "RadRScore" not in re.sub(r"(?i)offline radrscore|not the RadRScore of the paper", "", page)
    assert "Accuracy" in capsys.readouterr().out or "accuracy" in table


def test_one_model_needs_no_name(samples, tmp_path):
    results = evaluate(
        samples, {s.id: said("<answer> A </answer>") for s in samples}, tmp_path / "o", cases=1
    )
    assert {row.model for row in results.accuracy} == {"model"}


def test_predictions_of_another_data_set(samples, tmp_path):
    with pytest.raises(PredictionError, match="none of the predictions of 'm'"):
        evaluate_models(samples, {"m": {"x": said("")}}, tmp_path, cases=1)


def test_models_are_called_after_their_files(tmp_path):
    for name in ("a/one.jsonl", "b/one.jsonl", "b/two.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"id": "x", "prediction": ""}\n')
    paths = [tmp_path / name for name in ("a/one.jsonl", "b/one.jsonl", "b/two.jsonl")]
    assert list(read_models(paths)) == [str(tmp_path / "a/one"), str(tmp_path / "b/one"), "two"]
    with pytest.raises(PredictionError, match="given twice"):
        read_models(paths[:1] * 2)


def test_sentences_and_evidence_of_a_case(samples, tmp_path):
    models = {"m": cases((samples[0], SAID))}
    (item,) = items(models, score_offline(models), {"m": {}}, Album(tmp_path))
    (text,) = item.texts
    said_spans = [(text.text[span.start : span.end], span.verdict) for span in text.spans]
    assert said_spans[0] == ("There is a left pleural effusion.", "supported")
    assert said_spans[1] == ("The heart is not enlarged.", "contradicted")
    evidence = text.spans[1].evidence[0]
    number, start, end = evidence.source
    assert evidence.says == "no cardiomegaly: contradicted by the gold reasoning"
    assert item.references[number].text[start:end] == "The heart is enlarged."
    assert [span.verdict for span in item.references[0].spans] == ["recalled", "missed"]
    assert (item.answer, text.answer, text.right) == ("A) Yes", "A) Yes", True)
    assert text.numbers["offline RadRScore"] == pytest.approx(
        sum(text.numbers[f"offline {name}"] for name in ("factuality", "completeness", "effectiveness")) / 3
    )


def test_gold_beside_the_topic_can_be_recalled_but_not_missed(samples, tmp_path):
    sample = replace(samples[0], reason_steps=("There is edema.", "No pneumothorax.", "No rib fracture."))
    prediction = "<think> No pneumothorax. </think><answer> A </answer>"
    models = {"m": cases((sample, prediction))}
    (item,) = items(models, score_offline(models), {"m": {}}, Album(tmp_path))
    assert [span.verdict for span in item.references[0].spans] == ["missed", "recalled", ""]


def test_a_pair_of_images_is_captioned(samples, tmp_path):
    pair = binary(1, root=tmp_path, task="temporal", images=("1.png", "2.png"))
    models = {"m": cases((pair, SAID), (samples[1], SAID))}
    two, one = items(models, score_offline(models), {"m": {}}, Album(tmp_path))
    assert list(two.captions) == ["reference image", "new image"] and not one.captions


def test_pictures_within_a_budget(samples, tmp_path):
    album = Album(tmp_path / "out", budget=1)
    first, second = (album.picture(sample.image_paths[0]) for sample in samples[:2])
    assert first.thumbnail.startswith("data:image/jpeg;base64,") and first.link == "../1.png"
    assert not second.thumbnail and second.link == "../2.png"
    assert album.picture(samples[0].image_paths[0]) is first
    gone = Album(tmp_path).picture(tmp_path / "gone.png")
    assert "gone.png" in gone.missing and not gone.link


def test_links_are_quoted(tmp_path):
    sample = binary(1, root=tmp_path, images=('a "b" #c.png',))
    draw(sample)
    assert Album(tmp_path).picture(sample.image_paths[0]).link == "a%20%22b%22%20%23c.png"


def test_released_predictions(shared_data, tmp_path):
    with gzip.open(shared_data / "radrbench" / "released_predictions.jsonl.gz", "rt") as file:
        lines = [line for line in file if '"chexagent3b"' in line and "temporal" in line]
    released = tmp_path / "released.jsonl"
    released.write_text("".join(lines))
    (row,) = evaluate_released(released, tmp_path)
    assert round(100 * row.published, 1) == 66.7
    assert json.loads((tmp_path / "scores.json").read_text())["released"][0]["published"] == row.published
    assert "66.7" in (tmp_path / "scores.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "66.7" in page and "chexagent3b" in page and "<svg" in page
