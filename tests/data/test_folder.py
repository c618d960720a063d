from pathlib import Path

import pytest

from chestx_jax.data.sources import SourceError
from chestx_jax.data.sources.folder import read
from tests.data.layouts import collect, picture, table


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    table(
        tmp_path / "reports.csv.gz",
        ["Accession", "File", "Text", "MRN", "split"],
        [
            ["A1", "x/1.png", "FINDINGS: Large right pleural effusion. IMPRESSION: Effusion.", "m1", "train"],
            ["A1", "x/2.png", "", "m1", "train"],
            ["A2", "x/3.png; x/4.png", "The lungs are clear.", "", ""],
        ],
    )
    paths = [picture(tmp_path / f"x/{n}.png") for n in (1, 2, 3, 4)]
    columns = {"study": "Accession", "image": "File", "report": "Text", "patient": "MRN"}
    studies, rejected = collect(read, tmp_path, columns)
    assert rejected == {}
    assert [(s.id, s.source, s.patient, s.split) for s in studies] == [
        ("A1", "folder", "m1", "train"),
        ("A2", "folder", None, None),
    ]
    assert [s.images for s in studies] == [tuple(paths[:2]), tuple(paths[2:])]
    assert studies[0].findings == "Large right pleural effusion." and studies[0].impression == "Effusion."
    assert studies[1].report == "FINDINGS: The lungs are clear."
    assert (
        studies[0].labels["pleural effusion"] == 1 and studies[1].labels["consolidation"] == 0
    )  # from the text


def test_label_columns_go_before_the_text(tmp_path: Path) -> None:
    header = ["study", "image", "findings", "Pleural Effusion", "edema", "Age"]
    rows = [["1", "1.png", "Edema.", "1", "-1.0", "50"], ["2", "1.png", "Edema.", "yes", "", "50"]]
    table(tmp_path / "reports.csv", header, rows)
    picture(tmp_path / "1.png")
    ((study,), rejected) = collect(read, tmp_path, {})
    assert study.labels == {"pleural effusion": 1, "edema": -1}
    assert rejected == {"reports.csv: study 2": "Pleural Effusion is 'yes', none of 1, 0, -1 and blank"}


def test_a_prior_gives_progressions(tmp_path: Path) -> None:
    table(
        tmp_path / "reports.csv",
        ["study", "image", "impression", "prior"],
        [
            ["2", "2.png", "Increasing left pleural effusion.", "1"],  # the prior may come later
            ["1", "1.png", "Left pleural effusion.", ""],
            ["3", "2.png", "Stable edema.", "9"],
        ],
    )
    picture(tmp_path / "1.png")
    picture(tmp_path / "2.png")
    studies, rejected = collect(read, tmp_path, {})
    assert [(s.id, s.prior and s.prior.id, s.progression) for s in studies] == [
        ("2", "1", {"pleural effusion": "worsening"}),
        ("1", None, {}),
        ("3", None, {}),
    ]
    assert rejected == {"reports.csv: study 3": "no usable prior study 9"}


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    table(
        tmp_path / "reports.csv",
        ["study", "image", "report"],
        [
            ["1", "1.png", "Clear."],
            ["2", "2.png", "Clear."],
            ["3", "1.png", ""],
            ["", "1.png", "Clear."],
            ["4"],
        ],
    )
    picture(tmp_path / "1.png")
    studies, rejected = collect(read, tmp_path, {})
    assert [study.id for study in studies] == ["1"]
    assert rejected == {
        f"reports.csv: {tmp_path / '2.png'}": "cannot be read: No such file or directory",
        "reports.csv: study 2": "no image",
        "reports.csv: study 3": "no text",
        "reports.csv: study ": "no study id",
        "reports.csv: line 6": "1 values, the header has 3",
    }


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        (["study", "image"], {}, "no column of report, findings, impression"),
        (["image", "report"], {}, "no column 'study'; name it: --column=study=COLUMN"),
        (["study", "image", "report"], {"patient": "MRN"}, "column missing: MRN"),
        (["study", "image", "report"], {"age": "Age"}, "unknown field age; fields: study, image"),
    ],
)
def test_columns_that_are_not_there(
    tmp_path: Path, header: list[str], columns: dict[str, str], message: str
) -> None:
    table(tmp_path / "reports.csv", header, [])
    with pytest.raises(SourceError, match=message):
        read(tmp_path, columns, reject=pytest.fail)


def test_a_wrong_root_names_the_file_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"reports.csv\[.gz\]"):
        read(tmp_path, {}, reject=pytest.fail)
