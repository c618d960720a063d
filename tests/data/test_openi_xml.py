from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from chestx_jax.data.sources import SourceError
from chestx_jax.data.sources.openi import read
from tests.data.layouts import collect, picture

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR{uid}"/>
<MedlineCitation Owner="Indiana University" Status="supplied by publisher"><Article PubModel="Electronic"><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION">Positive TB test</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION"/>
</Abstract></Article></MedlineCitation>
<MeSH>{codes}<automatic>heart</automatic></MeSH>
{images}</eCitation>"""
IMAGE = (
    '<parentImage id="{}"><figureId>F1</figureId><caption>Xray Chest PA and Lateral</caption></parentImage>'
)


def report(
    root: Path, uid: int, findings: str, images: list[str], codes: tuple[str, ...] = ("normal",)
) -> None:
    (root / "ecgen-radiology").mkdir(parents=True, exist_ok=True)
    text = REPORT.format(
        uid=uid,
        findings=escape(findings),
        codes="".join(f"<major>{code}</major>" for code in codes),
        images="".join(IMAGE.format(image) for image in images),
    )
    (root / f"ecgen-radiology/{uid}.xml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("folder", ["NLMCXR_png", "images", "."])
def test_studies_of_the_original_release(tmp_path: Path, folder: str) -> None:
    images = ["CXR2_IM-0652-1001", "CXR2_IM-0652-2001"]
    report(tmp_path, 10, "Clear & normal.", ["CXR10_IM-0002-1001"])
    report(tmp_path, 2, "Big\n heart.", images, ("Cardiomegaly/mild", "Opacity/lung/base"))
    paths = [picture(tmp_path / folder / f"{name}.png") for name in [*images, "CXR10_IM-0002-1001"]]
    studies, rejected = collect(read, tmp_path)
    assert rejected == {}
    assert [(s.id, s.source, s.report) for s in studies] == [
        ("2", "openi", "FINDINGS: Big heart."),
        ("10", "openi", "FINDINGS: Clear & normal."),
    ]
    assert studies[0].images == tuple(paths[:2])
    assert studies[0].labels["cardiomegaly"] == 1 and studies[1].labels["no finding"] == 1
    assert studies[0].extra["mesh"] == ["Cardiomegaly/mild", "Opacity/lung/base"]
    assert studies[0].extra["indication"] == "Positive TB test"


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    report(tmp_path, 1, "Clear.", ["a", "b"])
    report(tmp_path, 2, "", ["a"])
    report(tmp_path, 3, "Clear.", [])
    (tmp_path / "ecgen-radiology/4.xml").write_text("<eCitation>")
    picture(tmp_path / "a.png")
    studies, rejected = collect(read, tmp_path)
    assert [(study.id, len(study.images)) for study in studies] == [("1", 1)]
    assert rejected.pop("ecgen-radiology/4.xml").startswith("not an XML file")
    assert rejected == {
        f"ecgen-radiology/1.xml: {tmp_path / 'b.png'}": "cannot be read: No such file or directory",
        "ecgen-radiology/2.xml": "neither findings nor impression",
        "ecgen-radiology/3.xml": "no image",
    }


def test_a_root_with_neither_release_names_both(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"indiana_reports.csv.*nor ecgen-radiology"):
        read(tmp_path, reject=pytest.fail)
    (tmp_path / "ecgen-radiology").mkdir()
    with pytest.raises(SourceError, match=r"not found: ecgen-radiology/\*.xml"):
        read(tmp_path, reject=pytest.fail)
