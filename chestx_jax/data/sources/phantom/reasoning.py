"""The systematic read of a scene: one short sentence a label, always in the order of `scene.LABELS`.

Devices, bones, mediastinum, heart, lungs, pleura. Every label is stated, present with side or degree,
or absent: a small model is taught to see all of them whatever it is asked. Two styles, by seed; a read keeps to
one, so that the wording of a sentence tells nothing but what is seen.
"""

from collections.abc import Mapping

import numpy as np

from chestx_jax.data.sources.phantom.scene import LABELS, Finding, Progress, Scene
from chestx_jax.data.sources.phantom.wording import degree, device, join, lobe, sentence, zone

_ABSENT: Mapping[str, tuple[str, str]] = {
    "support devices": ("no support devices are seen", "there are no support devices"),
    "fracture": ("no fracture is seen", "there is no fracture of the bones"),
    "enlarged cardiomediastinum": (
        "the cardiomediastinum is not enlarged",
        "there is no enlarged cardiomediastinum",
    ),
    "cardiomegaly": ("the heart is not enlarged, no cardiomegaly", "there is no cardiomegaly"),
    "consolidation": ("no consolidation is seen", "there is no consolidation"),
    "atelectasis": ("no atelectasis is seen", "there is no atelectasis"),
    "edema": ("no pulmonary edema is seen", "there is no pulmonary edema"),
    "lung lesion": ("no lung lesion is seen", "there is no lung lesion"),
    "lung opacity": ("no lung opacity is seen", "there is no lung opacity"),
    "pleural effusion": ("no pleural effusion is seen", "there is no pleural effusion"),
    "pneumothorax": ("no pneumothorax is seen", "there is no pneumothorax"),
}


def read(scene: Scene, rng: np.random.Generator) -> dict[str, str]:
    """Label -> its sentence, for every phantom label, in the order of `LABELS`."""
    style = int(rng.integers(2))
    return {label: sentence(_statement(scene, label, style)) for label in LABELS}


def _statement(scene: Scene, label: str, variant: int) -> str:
    if not scene.labels()[label]:
        return _ABSENT[label][variant]
    found = scene.find(label)
    if not found and label == "enlarged cardiomediastinum":
        return (
            "the cardiomediastinum is enlarged by the heart",
            "an enlarged cardiomediastinum is due to the heart",
        )[variant]
    if not found:
        return ("lung opacity is present", "there is lung opacity")[variant]
    return _present(found, variant)


def _present(found: tuple[Finding, ...], variant: int) -> str:
    f = found[0]
    match f.label:
        case "support devices":
            names = join([device(x) for x in found])
            return (f"support devices are seen: {names}", f"there are support devices: {names}")[variant]
        case "fracture":
            texts = (
                f"a displaced {f.side} rib fracture is seen",
                f"there is a displaced {f.side} rib fracture",
            )
        case "enlarged cardiomediastinum":
            wide = "wide" if f.level < 3 else "very wide"
            texts = (
                f"the cardiomediastinum is enlarged, {wide} above",
                "there is an enlarged cardiomediastinum",
            )
        case "cardiomegaly":
            texts = (f"the heart is enlarged, {degree(f)} cardiomegaly", f"there is {degree(f)} cardiomegaly")
        case "consolidation":
            texts = (
                f"a {degree(f)} consolidation is seen in the {lobe(f)}",
                f"there is a {degree(f)} consolidation in the {lobe(f)}",
            )
        case "atelectasis":
            base = "at both lung bases" if f.side == "both" else f"at the {f.side} lung base"
            texts = (f"{degree(f)} atelectasis is seen {base}", f"there is {degree(f)} atelectasis {base}")
        case "edema":
            texts = (
                f"{degree(f)} pulmonary edema is seen in both lungs",
                f"there is {degree(f)} pulmonary edema in both lungs",
            )
        case "lung lesion":
            texts = (
                f"a round lung lesion is seen in the {zone(f)}",
                f"there is a lung lesion in the {zone(f)}",
            )
        case "lung opacity":
            texts = (
                f"a hazy lung opacity is seen in the {zone(f)}",
                f"there is a lung opacity in the {zone(f)}",
            )
        case _:
            texts = _pleural(f)
    return texts[variant]


def _pleural(f: Finding) -> tuple[str, str]:
    if f.side == "both":
        return (
            f"{degree(f)} {f.label}s are seen on both sides",
            f"there are {degree(f)} {f.label}s on both sides",
        )
    return (f"a {degree(f)} {f.side} {f.label} is seen", f"there is a {degree(f)} {f.side} {f.label}")


def compare(
    scene: Scene, prior: Scene, progression: Mapping[str, Progress], rng: np.random.Generator
) -> dict[str, str]:
    """Label -> how it changed since the prior, for every label of `progression`."""
    steps: dict[str, str] = {}
    for label, change in progression.items():
        now = degree(scene.find(label)[0])
        earlier = prior.find(label)
        before = degree(earlier[0]) if earlier else "absent"
        name = "pulmonary edema" if label == "edema" else label
        if change == "stable":
            texts = (f"the {name} was {before} and is still {now}", f"the {name} stays {now}, as before")
        else:
            texts = (f"the {name} was {before} and is now {now}", f"the {name} went from {before} to {now}")
        steps[label] = sentence(texts[int(rng.integers(2))])
    return steps
