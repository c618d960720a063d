"""The calibrated judge: fitting, saving, and what it is worth on reports it has not seen."""

import json
from pathlib import Path

import numpy as np
import pytest

from chestx_jax.evaluation.radrscore import (
    CalibratedJudge,
    CalibratedJudgeError,
    Judgment,
    Reference,
    features,
    judgment,
    read_judged,
)
from chestx_jax.evaluation.radrscore.correlation import spearman
from chestx_jax.evaluation.radrscore.judged import reference_of

REFERENCE = Reference.of(
    ("There is a left pleural effusion.", "There is no pneumothorax."),
    "Left pleural effusion. No pneumothorax.",
    ("pleural effusion", "pneumothorax"),
    "A",
)


def rows(count: int = 40) -> tuple[list[dict[str, float]], np.ndarray]:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(count, 3))
    judged = np.clip(0.5 + 0.1 * table @ rng.normal(size=(3, 3)), 0, 1)
    return [dict(zip("abc", row, strict=True)) for row in table.tolist()], judged


def test_it_learns_a_linear_judge() -> None:
    table, judged = rows()
    judge = CalibratedJudge.fit(table, judged, penalty=1e-9)
    said = judge.predict(table[3])
    assert (said.factuality, said.completeness, said.effectiveness) == pytest.approx(
        tuple(judged[3]), abs=0.03
    )
    assert said.score == pytest.approx(np.mean([said.factuality, said.completeness, said.effectiveness]))


def test_it_equals_ridge_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    table, judged = rows()
    x = np.array([list(row.values()) for row in table])
    ridge = linear_model.Ridge(7.0).fit((x - x.mean(0)) / x.std(0), judged)
    judge = CalibratedJudge.fit(table, judged, penalty=7.0)
    np.testing.assert_allclose(judge.weights.T, ridge.coef_, atol=1e-12)
    np.testing.assert_allclose(judge.intercept, ridge.intercept_, atol=1e-12)


def test_a_reloaded_judge_says_exactly_the_same(tmp_path: Path) -> None:
    table, judged = rows()
    judge = CalibratedJudge.fit(table, judged)
    judge.save(tmp_path / "judge.json")
    again = CalibratedJudge.load(tmp_path / "judge.json")
    assert [again.predict(row) for row in table] == [judge.predict(row) for row in table]


def test_a_feature_without_spread_does_no_harm() -> None:
    table, judged = rows()
    said = CalibratedJudge.fit([row | {"d": 1.0} for row in table], judged).predict(table[0] | {"d": 1.0})
    assert said.score == pytest.approx(CalibratedJudge.fit(table, judged).predict(table[0]).score)


def test_errors_name_the_fault(tmp_path: Path) -> None:
    table, judged = rows()
    judge = CalibratedJudge.fit(table, judged)
    with pytest.raises(CalibratedJudgeError, match="b"):
        judge.predict({"a": 1.0, "c": 1.0})
    with pytest.raises(CalibratedJudgeError, match="shape"):
        CalibratedJudge.fit(table, judged[:, :2])
    path = tmp_path / "judge.json"
    path.write_text("no JSON")
    with pytest.raises(CalibratedJudgeError, match=r"judge\.json"):
        CalibratedJudge.load(path)
    judge.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mean": [1.0]}))
    with pytest.raises(CalibratedJudgeError, match="shapes"):
        CalibratedJudge.load(path)


def test_features_tell_texts_apart() -> None:
    right = features("<think> There is a left pleural effusion. </think><answer> A </answer>", REFERENCE)
    wrong = features("<think> There is a pneumothorax. </think><answer> B </answer>", REFERENCE)
    assert right.keys() == wrong.keys() == features("", REFERENCE).keys()
    assert right["answer right"] > wrong["answer right"]
    assert right["present supported"] == wrong["present contradicted"] == 1
    assert all(np.isfinite(value) for value in features("", REFERENCE).values())


def test_correlation_on_reports_not_seen(shared_data: Path) -> None:
    records = read_judged(shared_data / "radrbench" / "openi_judged.jsonl.gz")
    pairs = [(record, one) for record in records if isinstance(one := judgment(record), Judgment)]
    table = [features(record["pred"], reference_of(record)) for record, _ in pairs]
    judged = np.array([(one.factuality, one.completeness, one.effectiveness) for _, one in pairs])
    reports = sorted({record["original_report"] for record, _ in pairs})
    half = np.array([reports.index(record["original_report"]) % 2 for record, _ in pairs])
    for side in (0, 1):
        train, test = np.flatnonzero(half != side).tolist(), np.flatnonzero(half == side).tolist()
        judge = CalibratedJudge.fit([table[i] for i in train], judged[train])
        ours = np.array([judge.predict(table[i]).score for i in test])
        assert spearman(ours, judged[test].mean(axis=1)) >= 0.62
