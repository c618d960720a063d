"""Sentences of the FINDINGS section, one function a region: devices, heart, lungs, pleura, bones."""

import numpy as np

from chestx_jax.data.sources.phantom.scene import Finding, Scene
from chestx_jax.data.sources.phantom.wording import ADVERB, Pick, degree, join, lobe, side, zone


def devices(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
    """Each device, or sometimes that there is none."""
    found = scene.find("support devices")
    if not found:
        return (
            [pick("no support devices are present", "there are no lines or tubes")]
            if rng.random() < 0.2
            else []
        )
    return [_device(f, pick) for f in found]


def _device(f: Finding, pick: Pick) -> str:
    match f.kind:
        case "pacemaker":
            return pick(
                f"a {f.side} chest wall pacemaker is in place with its lead in the right ventricle",
                f"{f.side} sided pacemaker with intact lead",
                f"there is a {f.side} pectoral pacemaker",
            )
        case "central line":
            return pick(
                f"a {f.side} central venous catheter ends in the superior vena cava",
                f"{f.side} central line with tip in the lower SVC",
                f"there is a {f.side} central venous line in good position",
            )
        case "endotracheal tube":
            return pick(
                "an endotracheal tube ends above the carina",
                "the endotracheal tube is in standard position",
                "the patient is intubated, with the tip of the endotracheal tube above the carina",
            )
        case "chest tube":
            return pick(
                f"a {f.side} chest tube ends near the apex",
                f"{f.side} sided chest tube in place",
                f"there is a {f.side} pleural drain",
            )
        case _:
            return pick("ECG leads overlie the chest", "external monitoring leads project over the chest")


def heart(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
    """Heart size and mediastinum; what is normal may go unsaid."""
    big, wide = scene.find("cardiomegaly"), scene.find("enlarged cardiomediastinum")
    if not big and not wide and rng.random() < 0.45:
        return [
            pick(
                "the cardiomediastinal silhouette is within normal limits",
                "cardiac and mediastinal contours are normal",
                "heart size and mediastinal contours are unremarkable",
                "the cardiomediastinal silhouette is normal",
            )
        ]
    texts: list[str] = []
    if big:
        f = big[0]
        texts.append(
            pick(
                f"the heart is {ADVERB[f.level]} enlarged",
                f"there is {degree(f)} cardiomegaly",
                f"the cardiac silhouette is {ADVERB[f.level]} enlarged",
                f"{degree(f)} enlargement of the heart",
            )
        )
    elif rng.random() < 0.85:
        texts.append(
            pick(
                "the heart size is normal",
                "the heart is normal in size",
                "no cardiomegaly",
                "heart size is within normal limits",
            )
        )
    if wide:
        f = wide[0]
        texts.append(
            pick(
                f"the superior mediastinum is {ADVERB[f.level]} widened",
                f"there is {degree(f)} widening of the upper mediastinum",
                f"the upper cardiomediastinal contour is {ADVERB[f.level]} enlarged",
                f"the mediastinum is {ADVERB[f.level]} widened above the hila",
            )
        )
    elif not big and rng.random() < 0.5:  # a large heart enlarges the silhouette
        texts.append(
            pick(
                "mediastinal contours are unremarkable",
                "no mediastinal widening",
                "the mediastinum is not widened",
            )
        )
    return texts


def lungs(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
    """What is in the lungs, and some of what is not."""
    labels = scene.labels()
    texts = [_lung_finding(f, pick) for f in scene.findings if f.label in _LUNG]
    if not labels["lung opacity"] and rng.random() < 0.7:
        extra = "" if rng.random() < 0.6 else pick(" without focal opacity", " without focal consolidation")
        texts.append(pick("the lungs are clear", "lungs are clear", "both lungs are clear") + extra)
        return texts
    absent = [text for label, text in _NO_LUNG.items() if not labels[label] and rng.random() < 0.6]
    if absent:
        order = rng.permutation(len(absent))
        listed = join([absent[int(i)] for i in order], "or")
        texts.append(
            pick(f"no {listed}", f"no {listed} is seen", f"there is no {listed}", f"no evidence of {listed}")
        )
    return texts


_LUNG = ("consolidation", "atelectasis", "edema", "lung lesion", "lung opacity")
_NO_LUNG = {
    "consolidation": "focal consolidation",
    "edema": "pulmonary edema",
    "lung lesion": "suspicious nodule",
    "atelectasis": "atelectasis",
}


def _lung_finding(f: Finding, pick: Pick) -> str:
    match f.label:
        case "consolidation":
            return pick(
                f"{degree(f)} consolidation in the {lobe(f)} with air bronchograms",
                f"there is a {degree(f)} dense airspace consolidation in the {lobe(f)}",
                f"the {lobe(f)} shows a {degree(f)} area of consolidation",
                f"{degree(f)} airspace opacity in the {lobe(f)}, consistent with consolidation",
            )
        case "atelectasis":
            place = "at both lung bases" if f.side == "both" else f"at the {f.side} lung base"
            return pick(
                f"{degree(f)} platelike atelectasis {place}",
                f"there is {degree(f)} linear atelectasis {place} with volume loss",
                f"bandlike opacities {place} reflect {degree(f)} subsegmental atelectasis",
            )
        case "edema":
            return pick(
                f"{degree(f)} pulmonary edema with perihilar haze",
                f"there is {degree(f)} interstitial pulmonary edema with Kerley B lines",
                f"bilateral perihilar opacities are consistent with {degree(f)} pulmonary edema",
            )
        case "lung lesion":
            noun = "mass" if f.kind == "mass" else "nodule"
            return pick(
                f"there is a round {noun} in the {zone(f)}",
                f"a well circumscribed {noun} projects over the {zone(f)}",
                f"{f.side} {f.zone} lung {noun} with sharp margins",
            )
        case _:
            return pick(
                f"there is a hazy, ill-defined opacity in the {zone(f)}",
                f"{degree(f)} patchy opacity in the {zone(f)}",
                f"a vague ground-glass opacity is seen in the {zone(f)}",
            )


def pleura(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
    """Effusion and pneumothorax."""
    texts: list[str] = []
    effusion, air = scene.find("pleural effusion"), scene.find("pneumothorax")
    for f in effusion:
        s = "s" if f.side == "both" else ""
        be, a = ("are", "") if f.side == "both" else ("is", "a ")
        texts.append(
            pick(
                f"there {be} {a}{degree(f)} {side(f)} pleural effusion{s}",
                f"{degree(f)} {side(f)} pleural effusion{s}",
                f"{a}{degree(f)} {side(f)} pleural effusion{s} with meniscus sign {be} noted",
            )
        )
    for f in air:
        texts.append(
            pick(
                f"there is a {degree(f)} {f.side} pneumothorax",
                f"{degree(f)} {f.side} pneumothorax with a visible pleural line",
                f"a {degree(f)} {f.side} sided pneumothorax is present",
            )
        )
    absent = [n for n, found in (("pleural effusion", effusion), ("pneumothorax", air)) if not found]
    if len(absent) == 2 and rng.random() < 0.5:
        absent.reverse()
    if absent and rng.random() < 0.85:
        names = join(absent, "or")
        texts.append(
            pick(f"no {names}", f"there is no {names}", f"no {names} is seen", f"no evidence of {names}")
        )
    return texts


def bones(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
    """Fractures, or sometimes that there is none."""
    for f in scene.find("fracture"):
        return [
            pick(
                f"displaced fractures of {f.side} lateral ribs",
                f"there are displaced {f.side} rib fractures",
                f"adjacent {f.side} ribs are fractured with displacement",
            )
        ]
    if rng.random() < 0.6:
        return [
            pick(
                "no acute osseous abnormality",
                "the bony thorax is intact",
                "no displaced fracture is identified",
                "osseous structures are unremarkable",
                "no acute fracture",
            )
        ]
    return []
