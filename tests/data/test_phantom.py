"""The phantom collection: same seed same bytes, and report, reasoning, labels and pictures that agree."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chestx_jax.data.schema import PROGRESSIONS, Study
from chestx_jax.data.sources.phantom import LABELS, TEMPORAL_LABELS, studies
from chestx_jax.data.sources.phantom.collection import PhantomStudy, phantom
from chestx_jax.radiology import label_report

COUNT = 500
WORDS = {
    "support devices": r"pacem|endotracheal|central (venous|line)|chest tube|drain|leads|devices|no lines",
    "fracture": r"fracture|osseous|bony|bones",
    "enlarged cardiomediastinum": r"mediast|cardiomegaly|heart|cardiac|silhouette",
    "cardiomegaly": r"cardiomegaly|heart|cardiac|cardiomediastinal silhouette",
    "consolidation": r"consolidation",
    "atelectasis": r"atelectasis",
    "edema": r"edema",
    "lung lesion": r"nodule|mass\b|lesion",
    "lung opacity": r"opacit|consolidation|atelectasis|edema|nodule|mass\b|lesion|lungs are clear",
    "pleural effusion": r"pleural effusion",
    "pneumothorax": r"pneumothorax",
}
PARENTS = ("lung opacity", "enlarged cardiomediastinum")
NEGATIVE = re.compile(
    r"\b(no|not|without|normal|unremarkable|clear|thorax is intact|within normal limits)\b",
    re.IGNORECASE,
)
CHANGE = re.compile(r"\b(since|compared|comparison)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def texts() -> list[Study]:
    return list(studies(COUNT, seed=3, out=None))


@pytest.fixture(scope="module")
def scenes() -> list[PhantomStudy]:
    return [phantom(3, i) for i in range(COUNT)]


def sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=\.)\s+", text) if not re.fullmatch(r"\d+\.", s)]


def said(label: str, lines: Sequence[str]) -> tuple[bool, bool]:
    """(is it said to be there, is it said not to be there), by key words sentence by sentence."""
    hits = [s for s in lines if re.search(WORDS[label], s, re.IGNORECASE)]
    positive = [s for s in hits if not NEGATIVE.search(s)]
    return bool(positive), len(positive) < len(hits)


def test_same_seed_same_bytes_and_prefix(tmp_path: Path) -> None:
    def run(n: int, seed: int, name: str) -> tuple[list[Study], dict[str, str]]:
        out = tmp_path / name
        found = list(studies(n, seed=seed, size=96, out=out))
        return found, {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (out / "images").iterdir()}

    few, few_bytes = run(4, 7, "few")
    many, many_bytes = run(8, 7, "many")
    _, other_bytes = run(4, 8, "other")
    assert [(s.report, s.reason_steps, s.labels) for s in few] == [
        (s.report, s.reason_steps, s.labels) for s in many[:4]
    ]
    assert few_bytes.items() <= many_bytes.items()
    assert not set(few_bytes.values()) & set(other_bytes.values())
    pictures = [p for s in many for p in (*s.images, *(s.prior.images if s.prior else ()))]
    assert sorted(p.name for p in pictures) == sorted(many_bytes)
    assert len(set(many_bytes.values())) == len(many_bytes)


def test_drawing_does_not_change_the_text(tmp_path: Path) -> None:
    drawn = next(studies(1, seed=1, size=64, out=tmp_path))
    told = next(studies(1, seed=1, out=None))
    assert (drawn.report, drawn.reason_steps, drawn.labels) == (told.report, told.reason_steps, told.labels)
    with Image.open(drawn.images[0]) as image:
        assert image.size == (64, 64) and image.mode == "L"


def test_every_label_is_common_enough(texts: list[Study]) -> None:
    for label in LABELS:
        share = np.mean([s.labels[label] for s in texts])
        low, high = {"lung opacity": (0.4, 0.65), "enlarged cardiomediastinum": (0.2, 0.4)}.get(
            label, (0.1, 0.25)
        )
        assert low < share < high, (label, share)
    normal = np.mean([not any(s.labels.values()) for s in texts])
    assert 0.1 < normal < 0.22
    assert len({s.patient for s in texts}) == COUNT


def test_labels_are_all_zero_or_one_without_pneumonia(texts: list[Study]) -> None:
    for study in texts:
        assert set(study.labels) == set(LABELS)
        assert set(study.labels.values()) <= {0, 1}
        children = ("consolidation", "atelectasis", "edema", "lung lesion")
        if any(study.labels[c] for c in children):
            assert study.labels["lung opacity"] == 1
        if study.labels["cardiomegaly"]:
            assert study.labels["enlarged cardiomediastinum"] == 1
        assert "pneumonia" not in study.report.lower()


@pytest.mark.parametrize("label", LABELS)
def test_report_agrees_with_labels(texts: list[Study], label: str) -> None:
    for study in texts:
        for section in ("findings", "impression"):
            there, absent = said(label, sentences(getattr(study, section)))
            if study.labels[label]:
                if section == "findings":
                    assert there, study.report
                if label not in PARENTS:  # a parent may be denied in part ("heart size is normal")
                    assert not absent, study.report
            else:
                assert not there, (section, study.report)


def test_the_house_reads_report_and_reasoning_as_labelled(texts: list[Study]) -> None:
    for study in texts[:120]:
        read = label_report(study.report)
        for label, value in study.labels.items():
            assert read[label] == value or (read[label] is None and value == 0), (label, study.report)
        for label, step in study.extra["steps"].items():
            assert label_report(step)[label] == study.labels[label], step
        chain = label_report(" ".join(study.reason_steps))
        assert {label: chain[label] for label in LABELS} == study.labels, study.reason_steps


def test_report_is_well_formed(texts: list[Study]) -> None:
    for study in texts:
        for s in sentences(study.findings) + sentences(study.impression):
            assert s.endswith(".") and s[0].isupper(), s
            assert "  " not in s and " ," not in s and ".." not in s, s
            assert not re.search(r"\ba [aeiou]", s), s
        assert study.impression
    assert len({s.report for s in texts}) > 0.9 * COUNT


def test_reasoning_states_every_label_exactly_once_in_order(texts: list[Study]) -> None:
    heads = {
        "support devices": r"support devices",
        "fracture": r"fracture",
        "enlarged cardiomediastinum": r"cardiomediastinum",
        "cardiomegaly": r"cardiomegaly",
        "edema": r"pulmonary edema",
    }
    for study in texts:
        assert tuple(study.extra["steps"]) == LABELS
        assert study.reason_steps == tuple(study.extra["steps"].values())
        for label, step in study.extra["steps"].items():
            pattern = heads.get(label, label)
            assert [i for i, s in enumerate(study.reason_steps) if re.search(pattern, s, re.IGNORECASE)] == [
                LABELS.index(label)
            ], (label, study.reason_steps)
            denied = bool(re.search(r"\b(absent|not)\b", step, re.IGNORECASE))
            assert denied == (study.labels[label] == 0), step
            assert 3 <= len(step.split()) <= 14, step
        chain = [*study.reason_steps, *study.extra["comparison_steps"].values()]
        assert len(" ".join(chain).split()) <= 110


def test_reasoning_and_report_name_the_side(texts: list[Study], scenes: list[PhantomStudy]) -> None:
    for study, drawn in zip(texts, scenes, strict=True):
        for f in drawn.scene.findings:
            if f.side not in ("right", "left"):
                continue
            other = "left" if f.side == "right" else "right"
            step = study.extra["steps"][f.label]
            if len(drawn.scene.find(f.label)) == 1:
                assert (f.zone == "mid" and "lingula" in step) or f.side in step, step
                assert other not in step, step


def test_priors(texts: list[Study], scenes: list[PhantomStudy]) -> None:
    with_prior = [(s, d) for s, d in zip(texts, scenes, strict=True) if s.prior]
    assert 0.25 < len(with_prior) / COUNT < 0.42
    seen = set()
    for study, drawn in with_prior:
        assert study.prior is not None and drawn.prior is not None
        assert study.prior.patient == study.patient and study.prior.id != study.id
        assert study.prior.prior is None and drawn.prior.patient == drawn.scene.patient
        assert drawn.prior.acquisition != drawn.scene.acquisition
        expected = {label for label in TEMPORAL_LABELS if study.labels[label]}
        assert set(study.progression) == expected == set(study.extra["comparison_steps"])
        for label, change in study.progression.items():
            before = max((f.level for f in drawn.prior.find(label)), default=0)
            now = max(f.level for f in drawn.scene.find(label))
            assert change in PROGRESSIONS
            assert change == ("stable" if now == before else "worsening" if now > before else "improving")
            assert study.prior.labels[label] == int(before > 0)
            seen.add((label, change))
        kept = [f for f in drawn.scene.findings if f.label not in TEMPORAL_LABELS]
        assert [f for f in drawn.prior.findings if f.label not in TEMPORAL_LABELS] == kept
        assert CHANGE.search(study.findings)
    assert seen == {(label, change) for label in TEMPORAL_LABELS for change in PROGRESSIONS}
    for study in texts:
        if study.prior is None:
            assert not study.progression and not CHANGE.search(study.report)
