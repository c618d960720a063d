"""RaTEScore, RadGraph and CheXbert through stand-ins that have the packages' names, calls and answers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from chestx_jax.evaluation.evaluate import evaluate_models
from chestx_jax.evaluation.model_metrics import MetricsError, model_metrics, open_scorers
from chestx_jax.evaluation.model_metrics.scores import FIVE, MEASURES
from tests.evaluation.samples import binary, cases, draw, said

TORCH = "class cuda:\n    def is_available(): return False\n"
RATESCORE = """
print("loading")
class RaTEScore:
    def __init__(self, bert_model="", eval_model="", batch_size=1, use_gpu=True, affinity_matrix="long"):
        assert not use_gpu
    def compute_score(self, candidate_list, reference_list):
        assert isinstance(candidate_list, list) and isinstance(reference_list, list)
        return [len(set(a.split()) & set(b.split())) / 4 for a, b in zip(candidate_list, reference_list)]
"""
RADGRAPH = """
class F1RadGraph:
    def __init__(self, reward_level, model_type=None):
        assert (reward_level, model_type) == ("all", "radgraph-xl")
    def __call__(self, refs, hyps):
        print("Using device: cpu")
        assert len(refs) == len(hyps) == 1 and hyps[0]
        if "crash" in hyps[0]:
            raise KeyError("entities")
        return (0.75, 0.5, 0.25), ([0.75], [0.5], [0.25]), [{}], [{}]
"""
CHEXBERT = """
class F1CheXbert:
    def get_label(self, report, mode="rrg"):
        labels = [0] * 14
        for at, word in ((1, "heart"), (9, "effusion"), (12, "tube")):
            labels[at] = int(word in report)
        return labels
"""
STEPS = "<think> the heart is enlarged </think><answer> A </answer>"
REPORT = "the heart shows an effusion"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts packages where the other Python finds them."""
    home = tmp_path / "packages"
    home.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(home))
    (home / "torch.py").write_text(TORCH)

    def put(name: str, code: str) -> None:
        (home / f"{name}.py").write_text(code)
        about = home / f"{name.lower()}-0.1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")

    return put


def measured(name, *pairs):
    with open_scorers([name], sys.executable) as (scorer,):
        return model_metrics("m", cases(*pairs), scorer)


def test_ratescore_and_silence(install):
    install("RaTEScore", RATESCORE)
    (row,) = measured(
        "ratescore",
        (binary(1, report=REPORT), STEPS),
        (binary(2, report=REPORT), "<answer> A </answer>"),
        (binary(3, report=""), STEPS),
    )
    assert (row.measure, row.package, row.count, row.silent) == ("RaTEScore", "RaTEScore 0.1", 2, 1)
    assert row.value == pytest.approx(2 / 4 / 2)  # "the heart" of one, nothing of the other
    assert row.low == 0 and row.high == 0.5


def test_radgraph_has_three_levels_and_what_it_prints_is_no_answer(install):
    install("radgraph", RADGRAPH)
    rows = measured("radgraph", (binary(1), STEPS), (binary(2), "<answer> A </answer>"))
    assert [row.value for row in rows] == [0.375, 0.25, 0.125]
    assert [row.measure.split("(")[1] for row in rows] == ["RG_E)", "RG_ER)", "RG_bar_ER)"]


def test_chexbert_by_hand(install):
    install("f1chexbert", CHEXBERT)
    rows = measured(
        "chexbert",
        (binary(1, report=REPORT), STEPS),  # heart and effusion; heart
        (binary(2, report="a tube"), "<think> a tube </think><answer> A </answer>"),
        (binary(3, report="an effusion"), "<answer> A </answer>"),
    )
    values = {row.measure: row.value for row in rows}
    assert values == pytest.approx(
        {
            "CheXbert micro F1, 14 labels": 2 * 2 / (2 + 4),
            "CheXbert macro F1, 14 labels": 2 / 14,
            "CheXbert micro F1, 5 labels": 2 * 1 / (1 + 3),
            "CheXbert macro F1, 5 labels": 1 / 5,
        }
    )


def test_chexbert_f1_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rows = np.random.default_rng(0).integers(0, 2, (40, 28))
    rows[:, 3] = rows[:, 17] = 0
    for labels in (range(14), FIVE):
        predicted, gold = rows[:, list(labels)], rows[:, [14 + at for at in labels]]
        for average in ("micro", "macro"):
            ours = MEASURES["chexbert"][f"CheXbert {average} F1, {len(labels)} labels"](rows)
            assert ours == pytest.approx(metrics.f1_score(gold, predicted, average=average, zero_division=0))


@pytest.mark.parametrize(
    ("name", "package", "pip", "files"),
    [
        ("ratescore", "RaTEScore", "pip install RaTEScore ", "RaTE-NER-Deberta"),
        ("radgraph", "radgraph", "pip install radgraph 'transformers<5'", "radgraph-xl.tar.gz"),
        ("chexbert", "f1chexbert", "pip install f1chexbert 'transformers<5'", "chexbert.pth"),
    ],
)
def test_without_the_package_the_message_says_all_that_is_needed(install, name, package, pip, files):
    install(package, "import nothing_of_this_name")
    with pytest.raises(MetricsError) as caught, open_scorers([name], sys.executable):
        pass
    words = (f"package {package} does not import", "nothing_of_this_name", pip, "--metrics_python=", files)
    assert [word for word in words if word not in str(caught.value)] == []


def test_without_the_model_files_the_message_names_them(install):
    install("f1chexbert", "def F1CheXbert(): raise FileNotFoundError(2, 'No such file', 'chexbert.pth')")
    with pytest.raises(
        MetricsError, match=r"(?s)could not load its model \(FileNotFoundError.*model files: "
    ):
        measured("chexbert", (binary(1), STEPS))


def test_no_such_python(tmp_path):
    with (
        pytest.raises(MetricsError, match=r"cannot run .*nowhere: No such file"),
        open_scorers(["radgraph"], str(tmp_path / "nowhere")),
    ):
        pass


def test_a_failure_names_model_and_sample(install):
    install("radgraph", RADGRAPH)
    with pytest.raises(MetricsError, match=r"KeyError: 'entities' \(model 'm', sample 'binary-7'\)"):
        measured("radgraph", (binary(1), STEPS), (binary(7), "<think> crash </think><answer> A </answer>"))


def test_a_process_that_dies_is_told(install):
    install("f1chexbert", "import os\nclass F1CheXbert:\n    def get_label(self, report): os._exit(7)")
    with pytest.raises(MetricsError, match=r"ended with code 7.*sample 'binary-1'"):
        measured("chexbert", (binary(1), STEPS))


def test_samples_without_reports_cannot_be_compared(install):
    install("f1chexbert", CHEXBERT)
    with pytest.raises(MetricsError, match="no sample has a report"):
        measured("chexbert", (binary(1, report=" "), STEPS))


def test_a_missing_package_stops_before_anything_is_written(tmp_path, install):
    install("radgraph", "raise ImportError('torch')")
    with pytest.raises(MetricsError):
        evaluate_models(
            [binary(1)], {"m": {"binary-1": said(STEPS)}}, tmp_path / "o", cases=1, metrics=["radgraph"]
        )
    assert not (tmp_path / "o").exists()


def test_scores_and_page_have_them(tmp_path, install, capfd):
    install("radgraph", RADGRAPH)
    install("f1chexbert", CHEXBERT)
    sample = binary(1, root=tmp_path)
    draw(sample)
    out = tmp_path / "out"
    evaluate_models([sample], {"m": {sample.id: said(STEPS)}}, out, cases=1, metrics=["radgraph", "chexbert"])
    rows = json.loads((out / "scores.json").read_text())["model_metrics"]
    assert len(rows) == 7 and {row["package"] for row in rows} == {"radgraph 0.1", "f1chexbert 0.1"}
    for file in ("scores.md", "report.html"):
        text = Path(out / file).read_text()
        assert "RG_bar_ER" in text and "CheXbert micro F1, 14 labels" in text and "f1chexbert 0.1" in text
    assert "Using device" not in capfd.readouterr().out
