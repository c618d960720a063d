import json
from pathlib import Path

import pytest

from chestx_jax.data.sources import SourceError, chexpert, chexpert_plus
from tests.data.layouts import LABEL_COLUMNS, collect, picture, table

HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABEL_COLUMNS]
BATCH = "CheXpert-v1.0 batch {}"


def rows(prefix: str, *paths: str, **labels: str) -> list[dict[str, str]]:
    return [{"Path": f"{prefix}/{path}", **labels} for path in paths]


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0", "CheXpert-v1.0-small"])
def test_chexpert_studies_and_splits(tmp_path: Path, prefix: str) -> None:
    views = ["train/patient00001/study1/view2_lateral.jpg", "train/patient00001/study1/view1_frontal.jpg"]
    valid = "valid/patient64541/study1/view1_frontal.jpg"
    test = "test/patient64741/study1/view1_frontal.jpg"
    table(tmp_path / "train.csv", HEADER, rows(prefix, *views, **{"Edema": "-1.0", "Pneumonia": "1.0"}))
    table(tmp_path / "valid.csv", HEADER, rows(prefix, valid, **{"No Finding": "1.0", "Edema": "0.0"}))
    table(tmp_path / "test_labels.csv", ["Path", *LABEL_COLUMNS[1:]], [{"Path": test, "Fracture": "1"}])
    for path in (*views, valid, test):
        picture(tmp_path / path)
    studies, rejected = collect(chexpert.read, tmp_path)
    assert rejected == {}
    assert [(s.id, s.patient, s.split, s.report) for s in studies] == [
        ("patient00001_study1", "patient00001", "train", ""),
        ("patient64541_study1", "patient64541", "validation", ""),
        ("patient64741_study1", "patient64741", "test", ""),
    ]
    assert studies[0].images == (tmp_path / views[1], tmp_path / views[0])  # frontal first
    assert (studies[0].labels["edema"], studies[0].labels["pneumonia"]) == (-1, 1)
    assert studies[1].labels["no finding"] == 1 and "pleural other" not in studies[1].labels
    assert studies[2].labels["fracture"] == 1


def test_chexpert_as_its_archives_unpack(tmp_path: Path) -> None:
    base = tmp_path / BATCH.format("1 (validate & csv)")
    table(base / "train.csv", HEADER, rows("CheXpert-v1.0", "train/patient00001/study1/view1_frontal.jpg"))
    table(base / "valid.csv", HEADER, rows("CheXpert-v1.0", "valid/patient64541/study1/view1_frontal.jpg"))
    expert = ["CheXpert-v1.0/test/patient64741/study1", *["0"] * 13]
    table(tmp_path / "groundtruth.csv", ["Study", *LABEL_COLUMNS[1:]], [expert])
    first = picture(tmp_path / BATCH.format("2 (train 1)") / "patient00001/study1/view1_frontal.jpg")
    second = picture(base / "valid/patient64541/study1/view1_frontal.jpg")
    lateral = picture(tmp_path / "test/patient64741/study1/view1_lateral.jpg")
    frontal = picture(tmp_path / "test/patient64741/study1/view2_frontal.jpg")
    studies, rejected = collect(chexpert.read, tmp_path)
    assert rejected == {} and [s.images for s in studies] == [(first,), (second,), (frontal, lateral)]


def test_chexpert_leaves_nothing_out_in_silence(tmp_path: Path) -> None:
    paths = [f"train/patient0000{n}/study1/view1_frontal.jpg" for n in (1, 2, 3)]
    listed = rows("CheXpert-v1.0", paths[0]) + rows("CheXpert-v1.0", paths[1], Edema="2")
    table(tmp_path / "train.csv", HEADER, [*listed, *rows("CheXpert-v1.0", paths[2]), {"Path": "view1.jpg"}])
    table(tmp_path / "valid.csv", HEADER, [])
    for path in paths[1:]:
        picture(tmp_path / path)
    studies, rejected = collect(chexpert.read, tmp_path)
    assert [study.id for study in studies] == ["patient00003_study1"]
    missing = tmp_path / paths[0]
    reasons = {
        f"train.csv: {missing}": "cannot be read: No such file or directory",
        "train.csv: train/patient00001/study1": "no image",
        "train.csv: train/patient00002/study1": "Edema is '2', none of 1, 0, -1 and blank",
    }
    assert rejected.pop("train.csv: ").startswith("not of the form train/patient")
    assert rejected == reasons
    with pytest.raises(SourceError, match=r"train.csv\[.gz\], valid.csv\[.gz\]"):
        chexpert.read(tmp_path / "train", reject=pytest.fail)
    table(tmp_path / "valid.csv", [name for name in HEADER if name != "Edema"], [])
    with pytest.raises(SourceError, match=r"valid.csv: column missing: Edema"):
        chexpert.read(tmp_path, reject=pytest.fail)


PLUS = [
    "path_to_image",
    "path_to_dcm",
    "frontal_lateral",
    "ap_pa",
    "deid_patient_id",
    "patient_report_date_order",
    "report",
    "section_narrative",
    "section_clinical_history",
    "section_history",
    "section_comparison",
    "section_technique",
    "section_procedure_comments",
    "section_findings",
    "section_impression",
    "section_end_of_impression",
    "section_summary",
    "section_accession_number",
    "age",
    "sex",
    "race",
    "ethnicity",
    "interpreter_needed",
    "insurance_type",
    "recent_bmi",
    "deceased",
    "split",
]


def plus(path: str, split: str = "train", findings: str = "Clear.\n", impression: str = "") -> dict[str, str]:
    patient = path.split("/")[1]
    return {
        "path_to_image": path,
        "deid_patient_id": patient,
        "section_findings": findings,
        "section_impression": impression,
        "split": split,
    }


def labelled(root: Path, values: dict[str, dict[str, float]]) -> None:
    root.mkdir(exist_ok=True)
    lines = [
        json.dumps({"path_to_image": path, **dict.fromkeys(LABEL_COLUMNS), **v}) for path, v in values.items()
    ]
    (root / "report_fixed.json").write_text("\n".join([*lines, "{"]) + "\n")


def test_chexpert_plus(tmp_path: Path) -> None:
    lateral, frontal, other, silent, bare, odd = (
        f"{split}/patient{n}/study{m}/view{v}.jpg"
        for split, n, m, v in (
            ("train", 7, 5, "2_lateral"),
            ("train", 7, 5, "1_frontal"),
            ("valid", 8, 1, "1_frontal"),
            ("train", 9, 1, "1_frontal"),
            ("train", 9, 2, "1_frontal"),
            ("train", 9, 3, "1_frontal"),
        )
    )
    table(
        tmp_path / "df_chexpert_plus_240401.csv",
        PLUS,
        [  # the views of a study are apart
            plus(lateral),
            plus(other, "valid", impression="1. Normal."),
            plus(frontal),
            plus(silent, findings=""),
            plus(bare),
            plus(odd, "extra"),
        ],
    )
    values = {path: {"Edema": 1.0, "Fracture": -1.0} for path in (frontal, lateral, other, silent, odd)}
    labelled(tmp_path / "chexbert_labels", values)
    for path in (frontal, lateral, other):
        picture(tmp_path / "PNG" / path.replace(".jpg", ".png"))
    studies, rejected = collect(chexpert_plus.read, tmp_path)
    assert [(s.id, s.patient, s.split, s.report) for s in studies] == [
        ("patient7_study5", "patient7", "train", "FINDINGS: Clear."),
        ("patient8_study1", "patient8", "validation", "FINDINGS: Clear. IMPRESSION: 1. Normal."),
    ]
    assert [path.name for path in studies[0].images] == ["view1_frontal.png", "view2_lateral.png"]
    assert (studies[0].labels["edema"], studies[0].labels["fracture"], studies[0].labels["pneumonia"]) == (
        1,
        -1,
        None,
    )
    assert rejected.pop("report_fixed.json: line 6").startswith("not an image's labels")
    name = "df_chexpert_plus_240401.csv"
    assert rejected == {
        f"{name}: train/patient9/study1": "neither section_findings nor section_impression",
        f"{name}: train/patient9/study2": "no usable labels in report_fixed.json",
        f"{name}: train/patient9/study3": "split is 'extra', none of train, valid",
    }


def test_chexpert_plus_names_the_files_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"df_chexpert_plus_240401.csv"):
        chexpert_plus.read(tmp_path, reject=pytest.fail)
    table(
        tmp_path / "df_chexpert_plus_240401.csv.gz", PLUS, [plus("train/patient1/study1/view1_frontal.jpg")]
    )
    with pytest.raises(SourceError, match=r"report_fixed.json"):
        chexpert_plus.read(tmp_path, reject=pytest.fail)
    labelled(tmp_path, {})
    with pytest.raises(SourceError, match="not one line with path_to_image"):
        list(chexpert_plus.read(tmp_path, reject=lambda record: None))
