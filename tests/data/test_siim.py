import shutil
from pathlib import Path

import pytest

from chestx_jax.data.sources import SourceError
from chestx_jax.data.sources.siim import IMAGES, TABLE, read
from tests.data.layouts import collect, dicom, table


def test_masks_become_one_label_an_image(tmp_path: Path) -> None:
    table(
        tmp_path / TABLE,
        ["ImageId", " EncodedPixels"],  # with the blank that the published table has
        [["1.2.3", " 5 2 9 1"], ["1.2.3", " 90 4"], ["1.2.4", " -1"]],
    )
    first = dicom(tmp_path / IMAGES / "s1" / "r1" / "1.2.3.dcm", "anne")
    dicom(tmp_path / IMAGES / "s2" / "r2" / "1.2.4.dcm", "")
    studies, rejected = collect(read, tmp_path)
    assert rejected == {}
    assert [(s.id, s.patient, s.labels) for s in studies] == [
        ("1.2.3", "anne", {"pneumothorax": 1}),
        ("1.2.4", None, {"pneumothorax": 0}),
    ]
    assert studies[0].images == (first,) and studies[0].report == ""


def test_real_dicom_headers_are_read(tmp_path: Path, shared_data: Path) -> None:
    names = ("RG1_UNCI", "rsna_pa_jpeg8_mono2")
    for name in names:
        (tmp_path / IMAGES / name).mkdir(parents=True)
        shutil.copy(shared_data / "dicom" / f"{name}.dcm", tmp_path / IMAGES / name)
    table(tmp_path / TABLE, ["ImageId", "EncodedPixels"], [[name, "-1"] for name in names])
    studies, rejected = collect(read, tmp_path)
    assert [study.id for study in studies] == list(names) and rejected == {}


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    rows = [["a", "-1"], ["b", "-1"], ["c", "-1"], ["d", ""]]
    table(tmp_path / TABLE, ["ImageId", "EncodedPixels"], rows)
    for name in ("a", "d", "e"):
        dicom(tmp_path / IMAGES / "s" / f"{name}.dcm", name)
    broken = tmp_path / IMAGES / "s" / "b.dcm"
    broken.write_bytes(b"no DICOM")
    studies, rejected = collect(read, tmp_path)
    assert [study.id for study in studies] == ["a"]
    assert rejected.pop(f"{TABLE}: b: {broken}").startswith("not a DICOM file")
    assert rejected == {
        f"{TABLE}: c": f"no such image below {IMAGES}",
        f"{TABLE}: d": "EncodedPixels is blank",
        f"{IMAGES}: e": f"not in {TABLE}",
    }


def test_a_wrong_root_names_the_files_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=TABLE):
        read(tmp_path, reject=pytest.fail)
    table(tmp_path / TABLE, ["ImageId", "EncodedPixels"], [])
    with pytest.raises(SourceError, match=f"not found: {IMAGES}"):
        read(tmp_path, reject=pytest.fail)
