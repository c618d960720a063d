import gzip
import random
from pathlib import Path

import pytest

from chestx_jax.data.questions import build_questions
from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Rejected, Request, SourceError, columns_of_flags, read_studies, tasks_of
from chestx_jax.data.sources.image_files import problem_of
from chestx_jax.data.sources.label_columns import labels_of
from chestx_jax.data.sources.tables import find_table, rows
from tests.data.layouts import LABEL_COLUMNS, dicom, picture, table


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_rows_stream_from_plain_and_gzipped_tables(tmp_path: Path, name: str) -> None:
    table(tmp_path / name, ["a", " b", "c"], [["1", " x, y ", ""], ["2", "line\nbreak", "z"]])
    path = find_table([tmp_path / "elsewhere", tmp_path], "t.csv")
    assert path == tmp_path / name
    assert list(rows(path, ("b", "a"), pytest.fail)) == [
        {"b": "x, y", "a": "1"},
        {"b": "line\nbreak", "a": "2"},
    ]


def test_rows_of_another_width_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffa,b\n1,2\n3\n\n4,5,6\n7,8\n", encoding="utf-8")
    rejected: list[Rejected] = []
    assert [row["a"] for row in rows(tmp_path / "t.csv", ("a",), rejected.append)] == ["1", "7"]
    assert [(one.record, one.reason) for one in rejected] == [
        ("t.csv: line 3", "1 values, the header has 2"),
        ("t.csv: line 5", "3 values, the header has 2"),
    ]


def test_a_table_that_is_not_one_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(SourceError, match=r"empty.csv: the table is empty"):
        rows(tmp_path / "empty.csv", ("a",), pytest.fail)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"t.csv: column missing: c, d"):
        rows(tmp_path / "t.csv", ("a", "c", "d"), pytest.fail)
    (tmp_path / "fake.csv.gz").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"fake.csv.gz: broken table"):
        rows(tmp_path / "fake.csv.gz", ("a",), pytest.fail)
    whole = gzip.compress("".join(f"{n},{n * n}\n" for n in range(9999)).encode())
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"a,b\n") + whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cut.csv.gz: broken table after line \d+"):
        list(rows(tmp_path / "cut.csv.gz", ("a",), pytest.fail))


def test_images_are_known_by_how_they_begin(tmp_path: Path) -> None:
    assert problem_of(picture(tmp_path / "a.jpg")) is None
    assert problem_of(picture(tmp_path / "a.png")) is None
    assert problem_of(dicom(tmp_path / "a.dcm", "p")) is None
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    (tmp_path / "empty.jpg").touch()
    assert problem_of(tmp_path / "page.jpg") == "not a JPEG, PNG, TIFF or DICOM file"
    assert problem_of(tmp_path / "empty.jpg") == "the file is empty"
    assert problem_of(tmp_path / "none.jpg") == "cannot be read: No such file or directory"
    assert problem_of(tmp_path) == "cannot be read: Is a directory"


def test_real_dicom_files_pass(shared_data: Path) -> None:
    files = sorted((shared_data / "dicom").glob("*.dcm"))
    assert len(files) == 2 and [problem_of(file) for file in files] == [None, None]


@pytest.mark.parametrize(
    ("row", "labels"),
    [
        (
            {"Edema": "1.0", "Fracture": "-1.0", "Pneumonia": "0"},
            {"edema": 1, "fracture": -1, "pneumonia": 0},
        ),
        ({"Edema": "", "Pleural Other": ""}, {"edema": None}),
        ({"No Finding": "1.0", "Support Devices": "1.0"}, {"no finding": None, "support devices": 1}),
        ({"No Finding": "1.0", "Support Devices": ""}, {"no finding": 1, "support devices": None}),
        ({"No Finding": "", "Edema": "0", "Pleural Other": "1.0"}, {"no finding": 0, "edema": 0}),
    ],
)
def test_label_columns(row: dict[str, str], labels: dict[str, int | None]) -> None:
    assert labels_of(row) == labels


def test_labels_of_any_row_make_questions() -> None:
    rng = random.Random(0)
    for number in range(300):
        row = {column: rng.choice(("", "", "0.0", "1.0", "-1.0")) for column in LABEL_COLUMNS}
        build_questions(Study(str(number), "mimic_cxr", (Path("a.jpg"),), labels=labels_of(row)))


def test_an_unknown_label_value_is_told_with_its_column() -> None:
    with pytest.raises(ValueError, match=r"Edema is '2.0'"):
        labels_of({"Edema": "2.0"})


def test_a_source_of_which_nothing_is_left_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    table(
        tmp_path / "reports.csv", ["study", "image", "report"], [["1", "1.png", "Clear."], ["2", "2.png", ""]]
    )
    request = Request(tmp_path, tmp_path, studies=0, seed=0, image_size=0)
    rejected: list[Rejected] = []
    with pytest.raises(SourceError, match=r"no study is left of 3 records: .*1 x no text"):
        list(read_studies("folder", request, rejected.append))
    assert len(rejected) == 3


def test_tasks_that_a_source_cannot_answer() -> None:
    assert tasks_of("rsna", ["single", "binary"]) == ["binary"]
    assert tasks_of("openi", ["single", "binary"]) == ["single", "binary"]
    with pytest.raises(SourceError, match="'ms_cxr_t' answers only temporal, not single"):
        tasks_of("ms_cxr_t", ["single"])


def test_columns_of_flags(tmp_path: Path) -> None:
    assert columns_of_flags(["study=Accession No", "image=a=b"]) == {"study": "Accession No", "image": "a=b"}
    for bad in (["study"], ["=x"], ["study="]):
        with pytest.raises(SourceError, match="not of the form FIELD=COLUMN"):
            columns_of_flags(bad)
    with pytest.raises(SourceError, match="'study' is named twice"):
        columns_of_flags(["study=a", "study=b"])
    request = Request(tmp_path, tmp_path, studies=0, seed=0, image_size=0, columns={"study": "a"})
    with pytest.raises(SourceError, match="'openi' has its own column names"):
        read_studies("openi", request, pytest.fail)
