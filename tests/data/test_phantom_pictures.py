"""What the phantom pictures show: polarity, sides, sizes, exposure."""

from dataclasses import replace

import numpy as np
import pytest

from chestx_jax.data.sources.phantom import LABELS, Finding, Scene, render
from chestx_jax.data.sources.phantom.collection import phantom
from chestx_jax.data.sources.phantom.scene import Patient, sample_acquisition, sample_patient

SIZE = 128


def scene(seed: int, *findings: Finding) -> Scene:
    rng = np.random.default_rng(seed)
    patient = replace(sample_patient(rng), breast=0.0)
    steady = replace(sample_acquisition(rng), rotation=0.0, zoom=1.0, shift=(0.0, 0.0), marker="")
    return Scene(patient, findings, steady)


def picture(seed: int, *findings: Finding) -> np.ndarray:
    return render(scene(seed, *findings), size=SIZE).astype(np.float32)


def mean(image: np.ndarray, x: tuple[float, float], y: tuple[float, float]) -> float:
    n = image.shape[0]
    return float(image[int(y[0] * n) : int(y[1] * n), int(x[0] * n) : int(x[1] * n)].mean())


SIDE_X = {"right": (0.13, 0.33), "left": (0.67, 0.87)}  # the patient's right is at the image's left


def test_render_is_pure_and_has_its_size() -> None:
    one = scene(0, Finding("edema", "both", level=2, seed=4))
    image = render(one, size=SIZE)
    assert image.shape == (SIZE, SIZE) and image.dtype == np.uint8
    assert np.array_equal(image, render(one, size=SIZE))
    assert render(one).shape == (256, 256)


def test_bones_and_heart_are_white_and_lungs_dark() -> None:
    image = picture(1)
    lungs = mean(image, (0.2, 0.32), (0.35, 0.6))
    assert mean(image, (0.45, 0.6), (0.55, 0.65)) > 1.6 * lungs  # heart
    assert mean(image, (0.3, 0.7), (0.85, 0.95)) > 1.6 * lungs  # abdomen
    assert mean(image, (0.0, 0.1), (0.0, 0.05)) < 0.6 * lungs  # air


def test_apex_of_the_heart_points_to_the_patients_left() -> None:
    image = picture(2)
    assert mean(image, (0.60, 0.66), (0.62, 0.68)) > mean(image, (0.34, 0.40), (0.62, 0.68)) + 40


def test_right_dome_is_higher() -> None:
    for seed in range(20):
        patient = sample_patient(np.random.default_rng(seed))
        assert patient.dome_right < patient.dome_left


@pytest.mark.parametrize("side", ["right", "left"])
def test_effusion_whitens_the_base_of_its_side(side: str) -> None:
    other = "left" if side == "right" else "right"
    for level in (2, 3):
        plain, sick = picture(3), picture(3, Finding("pleural effusion", side, level=level, seed=1))
        gain = {s: mean(sick, SIDE_X[s], (0.68, 0.78)) - mean(plain, SIDE_X[s], (0.68, 0.78)) for s in SIDE_X}
        assert gain[side] > 25 and abs(gain[other]) < 8


@pytest.mark.parametrize("side", ["right", "left"])
def test_pneumothorax_darkens_its_side(side: str) -> None:
    plain, sick = picture(4), picture(4, Finding("pneumothorax", side, level=3, seed=1))
    gain = {s: mean(sick, SIDE_X[s], (0.25, 0.6)) - mean(plain, SIDE_X[s], (0.25, 0.6)) for s in SIDE_X}
    other = "left" if side == "right" else "right"
    assert gain[side] < -8 < gain[other] + 4


@pytest.mark.parametrize("label", ["consolidation", "lung opacity", "lung lesion"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("zone", ["upper", "mid", "lower"])
def test_focal_findings_lie_in_their_zone(label: str, side: str, zone: str) -> None:
    finding = Finding(label, side, zone, 2, "nodule", seed=5)
    change = picture(6, finding) - picture(6)
    weight = np.maximum(change - 8, 0)
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    y, x = (weight * rows).sum() / weight.sum(), (weight * columns).sum() / weight.sum()
    assert (x < 0.5) == (side == "right")
    lower, upper = {"upper": (0.15, 0.36), "mid": (0.33, 0.52), "lower": (0.5, 0.72)}[zone]
    assert lower < y < upper


@pytest.mark.parametrize("label", ["consolidation", "edema", "pleural effusion", "pneumothorax"])
def test_a_higher_level_changes_more_of_the_picture(label: str) -> None:
    side = "both" if label == "edema" else "right"
    zone = "mid" if label == "consolidation" else ""
    plain = picture(7)
    changed = [
        np.abs(picture(7, Finding(label, side, zone, level, seed=9)) - plain).mean() for level in (1, 2, 3)
    ]
    assert changed[0] * 1.25 < changed[1] and changed[1] * 1.15 < changed[2], changed


def test_cardiomegaly_and_wide_mediastinum_are_different_places() -> None:
    plain = picture(8)
    heart = np.abs(picture(8, Finding("cardiomegaly", level=2)) - plain)
    wide = np.abs(picture(8, Finding("enlarged cardiomediastinum", level=2)) - plain)
    low, high = (0.5, 0.7), (0.15, 0.38)
    assert mean(heart, (0.2, 0.8), low) > 4 * mean(heart, (0.2, 0.8), high)
    assert mean(wide, (0.2, 0.8), high) > 4 * mean(wide, (0.2, 0.8), low)


def test_nothing_is_clipped_and_exposure_is_sane() -> None:
    for index in range(40):
        image = render(phantom(2, index).scene, size=SIZE)
        assert np.mean(image == 0) < 1e-3 and np.mean(image == 255) < 1e-3
        assert 70 < image.mean() < 190
        assert image.std() > 35


def test_every_drawn_label_has_a_visible_trace() -> None:
    """Taking one finding out of a scene must change the picture at the demo's 112 pixels."""
    seen: set[str] = set()
    for index in range(60):
        drawn = phantom(9, index).scene
        for finding in drawn.findings:
            without = replace(drawn, findings=tuple(f for f in drawn.findings if f is not finding))
            change = np.abs(render(drawn, size=112).astype(int) - render(without, size=112).astype(int))
            assert (change > 20).sum() >= 12, finding
            seen.add(finding.label)
    assert seen == set(LABELS)


def test_patients_differ() -> None:
    patients: set[Patient] = {phantom(0, i).scene.patient for i in range(50)}
    assert len(patients) == 50
