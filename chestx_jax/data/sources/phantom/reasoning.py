"""The systematic read of a scene: one short sentence a label, always in the order of `scene.LABELS`.

Heart, mediastinum, lungs, pleura, bones, devices. Every label is stated, present with side or degree,
or absent: a small model is taught to see all of them whatever it is asked. A sentence names the label before it
decides on it: a small model finds in the picture what the last words name, and learns several times as fast as
from "no .. is seen", where the first word decides. Two styles, by seed; a read keeps to one, so that the wording
tells nothing but what is seen.
"""

from collections.abc import Mapping

import numpy as np

from chestx_jax.data.sources.phantom.scene import LABELS, Finding, Progress, Scene
from chestx_jax.data.sources.phantom.wording import degree, device, join, lobe, sentence, zone

_NAME: Mapping[str, str] = {"fracture": "rib fracture", "edema": "pulmonary edema"}
"""What a label is called in a sentence, where that is not its own name."""


def read(scene: Scene, rng: np.random.Generator) -> dict[str, str]:
    """Label -> its sentence, for every phantom label, in the order of `LABELS`."""
    seen = ("present", "seen")[int(rng.integers(2))]
    return {label: sentence(_statement(scene, label, seen)) for label in LABELS}


def _statement(scene: Scene, label: str, seen: str) -> str:
    subject = f"{_NAME.get(label, label)} {'are' if label == 'support devices' else 'is'}"
    if not scene.labels()[label]:
        return f"{subject} absent" if seen == "present" else f"{subject} not seen"
    found = scene.find(label)
    if found:
        return f"{subject} {seen}{_details(found)}"
    # a parent label whose child is seen
    return (
        f"{subject} {seen}, due to the heart"
        if label == "enlarged cardiomediastinum"
        else f"{subject} {seen}"
    )


def _details(found: tuple[Finding, ...]) -> str:
    """Degree and place, as they follow "is present"."""
    f = found[0]
    match f.label:
        case "support devices":
            return f": {join([device(x) for x in found])}"
        case "fracture":
            return f", displaced, on the {f.side}"
        case "enlarged cardiomediastinum":
            return ", wide above" if f.level < 3 else ", very wide above"
        case "cardiomegaly":
            return f", {degree(f)}"
        case "consolidation":
            return f", {degree(f)}, in the {lobe(f)}"
        case "atelectasis":
            return f", {degree(f)}, at {'both lung bases' if f.side == 'both' else f'the {f.side} lung base'}"
        case "edema":
            return f", {degree(f)}, in both lungs"
        case "lung lesion":
            return f", round, in the {zone(f)}"
        case "lung opacity":
            return f", hazy, in the {zone(f)}"
        case _:
            return f", {degree(f)}, on {'both sides' if f.side == 'both' else f'the {f.side}'}"


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
