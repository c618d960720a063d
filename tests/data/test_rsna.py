import json
import shutil
from pathlib import Path

import pytest

from chestx_jax.data.questions import build_questions
from chestx_jax.data.sources import SourceError, tasks_of
from chestx_jax.data.sources.rsna import CLASSES, IMAGES, MAPPING, TABLE, read
from tests.data.layouts import collect, dicom, table

BOX = ["264.0", "152.0", "213.0", "379.0"]


def layout(root: Path, boxes: list[list[str]], classes: list[list[str]]) -> Path:
    table(root / TABLE, ["patientId", "x", "y", "width", "height", "Target"], boxes)
    table(root / CLASSES, ["patientId", "class"], classes)
    (root / IMAGES).mkdir()
    return root


def test_boxes_become_one_label_an_image(tmp_path: Path, shared_data: Path) -> None:
    root = layout(
        tmp_path,
        [["a", *BOX, "1"], ["a", *BOX, "1"], ["b", "", "", "", "", "0"], ["c", "", "", "", "", "0"]],
        [["a", "Lung Opacity"]] * 2 + [["b", "Normal"], ["c", "No Lung Opacity / Not Normal"]],
    )
    for name in "abc":  # a genuine file of the collection
        shutil.copy(shared_data / "dicom/rsna_pa_jpeg8_mono2.dcm", root / IMAGES / f"{name}.dcm")
    studies, rejected = collect(read, root)
    assert rejected == {}
    assert [(s.id, s.patient, s.split, s.labels["pneumonia"], s.labels["no finding"]) for s in studies] == [
        ("a", None, None, 1, 0),
        ("b", None, None, 0, 1),
        ("c", None, None, 0, 0),
    ]
    questions = [
        q for study in studies for q in build_questions(study, tasks_of("rsna", ["binary", "anomaly"]))
    ]
    assert [(q.question, q.answer_text, q.reason_steps) for q in questions] == [
        ("Does this chest X-ray show pneumonia? Options:\nA) Yes\nB) No", answer, ())
        for answer in ("Yes", "No", "No")
    ]


def test_the_mapping_to_nih_tells_the_patients(tmp_path: Path) -> None:
    root = layout(
        tmp_path, [[name, "", "", "", "", "0"] for name in "abc"], [[name, "Normal"] for name in "abc"]
    )
    for name in "abc":
        dicom(root / IMAGES / f"{name}.dcm", name)
    known = [
        {"subset_img_id": "a", "img_id": "00000007_001.png"},
        {"subset_img_id": "b", "img_id": "00000007_002.png"},
    ]
    (root / MAPPING).write_text(json.dumps(known))
    studies, rejected = collect(read, root)
    assert [study.patient for study in studies] == ["00000007", "00000007"]
    assert rejected == {f"{TABLE}: c": f"not in {MAPPING}"}
    (root / MAPPING).write_text("[1]")
    with pytest.raises(SourceError, match=f"{MAPPING}: not a list of objects"):
        read(root, reject=pytest.fail)


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    root = layout(
        tmp_path,
        [
            [name, *BOX, target]
            for name, target in (("a", "1"), ("b", "1"), ("c", "0"), ("d", "0"), ("e", "0"))
        ],
        [["a", "Lung Opacity"], ["b", "Normal"], ["c", "Odd"], ["e", "Normal"], ["f", "Normal"]],
    )
    for name in "abcd":
        dicom(root / IMAGES / f"{name}.dcm", name)
    studies, rejected = collect(read, root)
    assert [study.id for study in studies] == ["a"]
    known = "Normal, No Lung Opacity / Not Normal, Lung Opacity"
    assert rejected == {
        f"{TABLE}: b": "Target is '1', but the class 'Normal'",
        f"{CLASSES}: c": f"class is 'Odd', none of {known}",
        f"{CLASSES}: d": f"class is None, none of {known}",
        f"{TABLE}: {root / IMAGES / 'e.dcm'}": "cannot be read: No such file or directory",
        f"{CLASSES}: f": f"not in {TABLE}",
    }


def test_a_wrong_root_names_the_files_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{TABLE}.*{CLASSES}"):
        read(tmp_path, reject=pytest.fail)
    layout(tmp_path, [], [])
    (tmp_path / IMAGES).rmdir()
    with pytest.raises(SourceError, match=f"not found: {IMAGES}"):
        read(tmp_path, reject=pytest.fail)
