from pathlib import Path

import pytest

from chestx_jax.data.questions import build_questions
from chestx_jax.data.sources import SourceError
from chestx_jax.data.sources.ms_cxr_t import TABLE, read
from tests.data.layouts import collect, table
from tests.data.test_mimic_cxr import make

COLUMNS = ["dicom_id", "previous_dicom_id", "study_id", "previous_study_id", "subject_id"]
for finding in ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax"):
    COLUMNS += [f"{finding}_progression", f"{finding}_label_quality"]


def layout(root: Path, pairs: list[dict[str, str]], beside: str = "") -> Path:
    studies = [
        ("10000001", study, split, {}) for study, split in (("1", "train"), ("2", "train"), ("3", "test"))
    ]
    views = [
        (f"{study}{view}-0a1b2c3d", "10000001", study, view) for study in "123" for view in ("AP", "LATERAL")
    ]
    make(root, root, studies, views)
    table(root / beside / TABLE, COLUMNS, pairs)
    return root


def place(study: str) -> str:
    return f"p10/p10000001/s{study}/{study}AP-0a1b2c3d"


@pytest.mark.parametrize("beside", ["", "ms-cxr-t/1.0.0"])
def test_a_pair_becomes_temporal_questions_over_two_images(tmp_path: Path, beside: str) -> None:
    pair = {
        "dicom_id": place("2"),
        "previous_dicom_id": "1AP-0a1b2c3d",
        "edema_progression": "improving",
        "pleural_effusion_progression": "stable",
    }
    ((study,), rejected) = collect(read, layout(tmp_path, [pair], beside))
    assert rejected == {}
    assert (study.id, study.patient, study.split) == ("2-2AP-0a1b", "10000001", "train")
    assert study.progression == {"edema": "improving", "pleural effusion": "stable"}
    assert study.prior is not None and study.prior.report and study.report
    questions = build_questions(study)
    assert [(q.task, q.extra["label"], q.answer_text) for q in questions] == [
        ("temporal", "edema", "improving"),
        ("temporal", "pleural effusion", "stable"),
    ]
    folder = tmp_path / "files/p10/p10000001"
    assert questions[0].images == (str(folder / "s1/1AP-0a1b2c3d.jpg"), str(folder / "s2/2AP-0a1b2c3d.jpg"))
    assert questions[0].extra["prior_report"].startswith("FINDINGS: Clear")


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    said = {"edema_progression": "stable", "previous_dicom_id": place("1")}
    root = layout(
        tmp_path,
        [
            {**said, "dicom_id": place("2")},
            {**said, "dicom_id": "unknown"},
            {**said, "dicom_id": place("3")},
            {"previous_dicom_id": place("1"), "dicom_id": "2LATERAL-0a1b2c3d"},
            {**said, "dicom_id": "1LATERAL-0a1b2c3d", "edema_progression": "gone"},
        ],
    )
    image = root / "files/p10/p10000001/s3/3AP-0a1b2c3d.jpg"
    image.write_text("no picture")
    studies, rejected = collect(read, root)
    assert [study.id for study in studies] == ["2-2AP-0a1b"]
    assert rejected == {
        f"{TABLE}: unknown": "image unknown is not in mimic-cxr-2.0.0-metadata.csv.gz",
        f"{TABLE}: {place('3')}": f"{image}: not a JPEG, PNG, TIFF or DICOM file",
        f"{TABLE}: 2LATERAL-0a1b2c3d": "no progression",
        f"{TABLE}: 1LATERAL-0a1b2c3d": "progression of edema is 'gone', none of stable, worsening, improving",
    }


def test_a_wrong_root_names_the_files_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=TABLE):
        read(tmp_path, reject=pytest.fail)
    table(tmp_path / TABLE, COLUMNS, [])
    with pytest.raises(SourceError, match=r"mimic-cxr-2.0.0-metadata"):
        read(tmp_path, reject=pytest.fail)
