from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from chestx_jax.data.schema import LABELS, Study
from chestx_jax.data.sources import SOURCES, Rejected, Request, SourceError, read_studies
from chestx_jax.data.sources.openi import IMAGES, PROJECTIONS, REPORTS, read
from chestx_jax.data.sources.openi_codes import labels_of

HEAD = "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"


def layout(root: Path, reports: list[str], views: list[str], files: list[str]) -> Path:
    (root / IMAGES).mkdir(parents=True)
    (root / REPORTS).write_text(HEAD + "".join(f"{row}\n" for row in reports), encoding="utf-8")
    (root / PROJECTIONS).write_text("uid,filename,projection\n" + "".join(f"{row}\n" for row in views))
    for name in files:
        Image.new("L", (4, 4)).save(root / IMAGES / name)
    return root


def collect(root: Path) -> tuple[list[Study], list[Rejected]]:
    rejected: list[Rejected] = []
    return list(read(root, reject=rejected.append)), rejected


def test_a_study_with_its_views(tmp_path: Path) -> None:
    root = layout(
        tmp_path,
        ['7,Cardiomegaly/mild;Opacity/lung/base,Cardiomegaly,PA,Cough,None.,"Large, heart.",Big heart.'],
        ["7,7_b.png,Lateral", "7,7_a.png,Frontal"],
        ["7_a.jpg", "7_b.png"],
    )
    ((study,), rejected) = collect(root)
    assert rejected == []
    assert study.images == (
        root / IMAGES / "7_a.jpg",
        root / IMAGES / "7_b.png",
    )  # frontal first, .jpg for .png
    assert study.report == "FINDINGS: Large, heart. IMPRESSION: Big heart."
    assert (study.id, study.source, study.patient, study.split) == ("7", "openi", None, None)
    assert study.labels["cardiomegaly"] == 1 and study.labels["pneumothorax"] == 0
    assert study.extra["mesh"] == ["Cardiomegaly/mild", "Opacity/lung/base"]
    assert study.extra["projections"] == ["Frontal", "Lateral"]


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    root = layout(
        tmp_path,
        [
            "1,normal,normal,,,,Clear.,",
            "1,normal,normal,,,,Clear.,",
            "2,normal,normal,,,,,",
            "3,normal,normal,,,,Clear.,",
        ],
        ["1,1.png,Frontal", "2,2.png,Frontal", "3,3.png,Frontal", "9,9.png,Frontal", "1,1b.png,Oblique"],
        ["1.png", "1b.png", "2.png", "9.png"],
    )
    studies, rejected = collect(root)
    assert [study.id for study in studies] == ["1"]
    assert {(r.record, r.reason.split(",")[0]) for r in rejected} == {
        (f"{REPORTS}: uid 1", "this uid was listed before"),
        (f"{REPORTS}: uid 2", "neither findings nor impression"),
        (f"{REPORTS}: uid 3", "no image"),
        (f"{PROJECTIONS}: 3.png", f"no such image in {IMAGES}"),
        (f"{PROJECTIONS}: 9.png", "uid 9 has no report"),
        (f"{PROJECTIONS}: 1b.png", "projection 'Oblique' is none of Frontal"),
    }


def test_a_wrong_root_names_the_files_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{REPORTS}.*{PROJECTIONS}.*{IMAGES}"):
        read(tmp_path, reject=pytest.fail)
    layout(tmp_path / "x", [], [], [])
    (tmp_path / "x" / REPORTS).write_text("uid,findings\n")
    with pytest.raises(SourceError, match=f"{REPORTS}: column missing: MeSH"):
        collect(tmp_path / "x")


@pytest.mark.parametrize(
    ("codes", "ones", "unknown"),
    [
        (["normal"], {"no finding"}, set()),
        (["Spondylosis/thoracic vertebrae"], set(), set()),
        (["Pleural Effusion/left", "Fractures, Bone/ribs"], {"pleural effusion", "fracture"}, set()),
        (["Nodule/lung/base"], {"lung lesion"}, {"lung opacity"}),
        (["Nodule/pleura"], set(), {"lung lesion", "lung opacity"}),
        (
            ["Consolidation/lung", "Opacity/lung"],
            {"consolidation", "lung opacity"},
            {"pneumonia", "atelectasis"},
        ),
        (["Opacity/ribs/left"], set(), {"lung opacity", "consolidation", "pneumonia", "atelectasis"}),
        (["Cardiac Shadow/enlarged"], {"cardiomegaly"}, {"enlarged cardiomediastinum"}),
        (["Cardiomegaly/borderline"], set(), {"cardiomegaly", "enlarged cardiomediastinum"}),
        (["Catheters, Indwelling/right"], {"support devices"}, set()),
        (["Surgical Instruments"], set(), {"support devices"}),
        (["hemopneumothorax"], {"pneumothorax", "pleural effusion"}, set()),
    ],
)
def test_labels_of_codes(codes: list[str], ones: set[str], unknown: set[str]) -> None:
    labels = labels_of(codes)
    assert set(labels) == {*LABELS, "no finding"}
    assert {label for label, value in labels.items() if value == 1} == ones
    assert {label for label, value in labels.items() if value is None} == unknown


def test_reports_that_were_not_coded_have_no_labels() -> None:
    assert labels_of(["No Indexing"]) == labels_of([]) == labels_of([" "]) == {}


def test_the_real_collection(shared_data: Path) -> None:
    studies, rejected = collect(shared_data / "openi")
    assert len(studies) == 1225 and rejected == []
    assert sum(len(study.images) for study in studies) == 2428
    assert all(path.is_file() for study in studies for path in study.images)
    ones = Counter(label for study in studies for label, value in study.labels.items() if value == 1)
    assert (
        ones["no finding"] == 398
        and ones["pleural effusion"] == 63
        and ones["enlarged cardiomediastinum"] == 0
    )
    for study in studies:  # frontal views come first
        assert study.extra["projections"] == sorted(study.extra["projections"])


def test_the_registry(tmp_path: Path) -> None:
    root = layout(tmp_path / "o", ["1,normal,normal,,,,Clear.,"], ["1,1.png,Frontal"], ["1.png"])
    request = Request(root, tmp_path, studies=2, seed=0, image_size=32)
    assert [study.id for study in read_studies("openi", request, pytest.fail)] == ["1"]
    assert set(SOURCES) >= {"openi", "phantom"}
    with pytest.raises(SourceError, match="source 'elsewhere' is none of chexpert"):
        read_studies("elsewhere", request, pytest.fail)
    with pytest.raises(SourceError, match="takes no root"):
        read_studies("phantom", request, pytest.fail)
    bare = Request(None, tmp_path, studies=2, seed=0, image_size=32)
    with pytest.raises(SourceError, match="needs the root"):
        read_studies("openi", bare, pytest.fail)
    phantoms = list(read_studies("phantom", bare, pytest.fail))
    assert len(phantoms) == 2 and all(path.is_file() for study in phantoms for path in study.images)
