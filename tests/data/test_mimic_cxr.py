from pathlib import Path

import pytest

from chestx_jax.data.sources import SourceError
from chestx_jax.data.sources.mimic_cxr import frontal_first, read
from tests.data.layouts import LABEL_COLUMNS, collect, picture, table

METADATA = [
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
]
TEXT = " FINDINGS: \n \n Clear lungs.\n \n IMPRESSION: \n \n No acute process.\n"


def make(
    jpg: Path,
    reports: Path,
    studies: list[tuple[str, str, str, dict[str, str]]],
    views: list[tuple[str, str, str, str]],
    end: str = ".gz",
    labeller: str = "chexpert",
) -> Path:
    """`studies`: (subject, study, split, labels); `views`: (dicom, subject, study, ViewPosition)."""
    table(
        jpg / f"mimic-cxr-2.0.0-metadata.csv{end}",
        METADATA,
        [
            {"dicom_id": d, "subject_id": s, "study_id": study, "ViewPosition": view}
            for d, s, study, view in views
        ],
    )
    split_of = {study: split for _, study, split, _ in studies}
    table(
        jpg / f"mimic-cxr-2.0.0-split.csv{end}",
        ["dicom_id", "study_id", "subject_id", "split"],
        [[d, study, s, split_of[study]] for d, s, study, _ in views if study in split_of],
    )
    table(
        jpg / f"mimic-cxr-2.0.0-{labeller}.csv{end}",
        ["subject_id", "study_id", *LABEL_COLUMNS],
        [{"subject_id": s, "study_id": study, **labels} for s, study, _, labels in studies],
    )
    for dicom, subject, study, _ in views:
        picture(jpg / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg")
    for subject, study, _, _ in studies:
        path = reports / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEXT, encoding="utf-8")
    return jpg


ONE = [("10000032", "50414267", "validate", {"No Finding": "1.0", "Edema": "0.0", "Pneumonia": "-1.0"})]
VIEWS = [
    ("d1", "10000032", "50414267", "LATERAL"),
    ("d2", "10000032", "50414267", ""),
    ("d3", "10000032", "50414267", "PA"),
]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_study(tmp_path: Path, end: str) -> None:
    root = make(tmp_path, tmp_path, ONE, VIEWS, end)
    ((study,), rejected) = collect(read, root)
    assert rejected == {}
    folder = root / "files/p10/p10000032/s50414267"
    assert study.images == (folder / "d3.jpg", folder / "d2.jpg", folder / "d1.jpg")
    assert study.extra["views"] == ["PA", "", "LATERAL"]
    assert (study.id, study.source, study.patient) == ("50414267", "mimic_cxr", "10000032")
    assert study.split == "validation"
    assert study.report == "FINDINGS: Clear lungs. IMPRESSION: No acute process."
    assert (study.labels["no finding"], study.labels["edema"], study.labels["pneumonia"]) == (1, 0, -1)
    assert study.labels["fracture"] is None and "pleural other" not in study.labels


def test_a_physionet_download_in_place(tmp_path: Path) -> None:
    make(
        tmp_path / "mimic-cxr-jpg/2.1.0",
        tmp_path / "mimic-cxr/2.0.0/mimic-cxr-reports",
        ONE,
        VIEWS,
        labeller="negbio",
    )
    ((study,), _) = collect(read, tmp_path)
    assert study.report and study.images[0].is_relative_to(tmp_path / "mimic-cxr-jpg/2.1.0/files")


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    ids = ["1", "2", "3", "4", "5", "6"]
    studies = [("10000001", study, "train", {}) for study in ids]
    studies += [("10000001", "7", "holdout", {}), ("10000001", "8", "train", {"Edema": "5"})]
    views = [(f"d{study}", "10000001", study, "AP") for study in [*ids, "7", "8", "9"]]
    views.append(("d1b", "10000001", "1", "LL"))
    root = make(tmp_path, tmp_path, studies, views)
    table(root / "mimic-cxr-2.0.0-chexpert.csv.gz", ["subject_id", "study_id", *LABEL_COLUMNS], [
        {"subject_id": s, "study_id": study, **labels} for s, study, _, labels in [*studies, ("10000001", "99", "", {})]
    ])  # fmt: skip
    folder = root / "files/p10/p10000001"
    (folder / "s1/d1b.jpg").unlink()
    (folder / "s2/d2.jpg").write_bytes(b"")
    (folder / "s3.txt").unlink()
    (folder / "s4.txt").write_text(" INDICATION:  Cough.\n")
    (folder / "s5.txt").write_bytes(b" FINDINGS: \xff\n")
    studies, rejected = collect(read, root)
    assert [(study.id, len(study.images)) for study in studies] == [("1", 1), ("6", 1)]
    labels, metadata = "mimic-cxr-2.0.0-chexpert.csv.gz", "mimic-cxr-2.0.0-metadata.csv.gz"
    assert rejected.pop("mimic-cxr-2.0.0-split.csv.gz: study 7").startswith("split is 'holdout'")
    assert rejected == {
        f"{metadata}: {folder / 's1/d1b.jpg'}": "cannot be read: No such file or directory",
        f"{metadata}: {folder / 's2/d2.jpg'}": "the file is empty",
        f"{labels}: study 2": "no image",
        f"{labels}: study 3": "no report p10/p10000001/s3.txt",
        f"{labels}: study 4": "report p10/p10000001/s4.txt: neither findings nor impression",
        f"{labels}: study 5": "report p10/p10000001/s5.txt: not UTF-8",
        f"{labels}: study 7": "no usable row in mimic-cxr-2.0.0-split.csv.gz",
        f"{labels}: study 8": "Edema is '5', none of 1, 0, -1 and blank",
        f"{labels}: study 99": f"not in {metadata}, or listed before",
        f"{metadata}: study 9": f"no row in {labels}",
    }


def test_a_wrong_root_names_the_files_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"mimic-cxr-2.0.0-metadata.*mimic-cxr-2.0.0-split"):
        read(tmp_path, reject=pytest.fail)
    root = make(tmp_path / "x", tmp_path / "x", ONE, VIEWS)
    (root / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(SourceError, match=r"neither mimic-cxr-2.0.0-chexpert.csv\[.gz\] nor .*negbio"):
        read(root, reject=pytest.fail)
    table(root / "mimic-cxr-2.0.0-chexpert.csv", ["subject_id", "study_id", *LABEL_COLUMNS[1:]], [])
    with pytest.raises(SourceError, match="column missing: No Finding"):
        collect(read, root)


def test_frontal_views_come_first() -> None:
    views = ["LL", "AP AXIAL", "", "LATERAL", "PA", "LAO", "AP"]
    ordered = [view for _, view in frontal_first([("", view) for view in views])]
    assert ordered == ["AP AXIAL", "PA", "AP", "", "LL", "LATERAL", "LAO"]
