"""The predictions file survives kills and refuses to mix two models."""

from pathlib import Path

import pytest

from chestx_jax.evaluation.predictions import PredictionError, PredictionWriter, read_predictions


def rows(*ids: str) -> list[dict[str, str]]:
    return [{"id": id, "prediction": f"of {id}"} for id in ids]


def test_what_was_written_is_read_and_known_to_be_done(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    writer = PredictionWriter(path, {"model": "m"})
    assert writer.done == frozenset()
    writer.write(rows("a", "b"))
    writer.close()
    assert PredictionWriter(path, {"model": "m"}).done == {"a", "b"}
    assert read_predictions(path)["b"]["prediction"] == "of b"


def test_a_line_cut_by_a_kill_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    writer = PredictionWriter(path, {})
    writer.write(rows("a", "b"))
    writer.close()
    path.write_bytes(path.read_bytes()[:-9])
    again = PredictionWriter(path, {})
    assert again.done == {"a"}
    again.write(rows("b"))
    again.close()
    assert list(read_predictions(path)) == ["a", "b"]


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    writer = PredictionWriter(path, {"model": "m", "temperature": 0.0})
    writer.write(rows("a"))
    writer.close()
    with pytest.raises(PredictionError, match=r"temperature: 0\.0, now 1\.0"):
        PredictionWriter(path, {"model": "m", "temperature": 1.0})
    assert list(read_predictions(path)) == ["a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a"', "p.jsonl:2: not JSON"),
        ("[1]", "p.jsonl:2: not a JSON object"),
        ('{"id": 3, "prediction": "x"}', "p.jsonl:2: field 'id'"),
        ('{"id": "a"}', "p.jsonl:2: field 'prediction'"),
        ('{"id": "first", "prediction": "x"}', "p.jsonl:2: id 'first' is there twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "first", "prediction": "x"}\n' + line + "\n")
    with pytest.raises(PredictionError, match=message):
        read_predictions(path)
