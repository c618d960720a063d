"""The radiologist's report of a scene, in varied language and always true to it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from chestx_jax.data.sources.phantom.scene import Finding, Progress, Scene
from chestx_jax.data.sources.phantom.wording import ADVERB, degree, join, lobe, sentence, zone

Pick = Callable[..., str]


def write(
    scene: Scene,
    rng: np.random.Generator,
    prior: Scene | None = None,
    progression: Mapping[str, Progress] | None = None,
) -> tuple[str, str]:
    """(FINDINGS, IMPRESSION) of a scene, with a comparison when there is a prior."""

    def pick(*texts: str) -> str:
        return texts[int(rng.integers(len(texts)))]

    devices = _devices(scene, pick, rng)
    heart = _heart(scene, pick, rng)
    lungs = _lungs(scene, pick, rng)
    pleura = _pleura(scene, pick, rng)
    bones = _bones(scene, pick, rng)
    orders = (
        (devices, heart, lungs, pleura, bones),
        (lungs, pleura, heart, bones, devices),
        (heart, lungs, pleura, bones, devices),
        (devices, lungs, pleura, heart, bones),
    )
    parts = [s for group in orders[int(rng.integers(len(orders)))] for s in group]
    changes = _changes(scene, prior, progression or {}, pick) if prior else []
    findings = " ".join(sentence(s) for s in [*parts, *changes])
    return findings, _impression(scene, prior, progression or {}, pick, rng)


def _side(f: Finding) -> str:
    return "bilateral" if f.side == "both" else f.side


def _name(f: Finding) -> str:
    """The finding as a noun phrase without article."""
    match f.label:
        case "consolidation":
            return f"{lobe(f)} consolidation"
        case "edema":
            return "pulmonary edema"
        case "atelectasis":
            return f"{'bibasilar' if f.side == 'both' else f.side + ' basilar'} atelectasis"
        case "pleural effusion":
            return f"{_side(f)} pleural effusion" + ("s" if f.side == "both" else "")
        case _:
            return f"{f.side} {f.label}"


def _devices(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
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
        case "sternal wires":
            return pick(
                "median sternotomy wires are intact",
                "sternal wires are present",
                "there are sternotomy wires",
            )
        case _:
            return pick("ECG leads overlie the chest", "external monitoring leads project over the chest")


def _heart(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
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
    elif rng.random() < 0.5:
        texts.append(
            pick(
                "mediastinal contours are unremarkable",
                "no mediastinal widening",
                "the mediastinum is not widened",
            )
        )
    return texts


def _lungs(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
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
                f"bilateral perihilar opacities and prominent vessels are consistent with {degree(f)} pulmonary edema",
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


def _pleura(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
    texts: list[str] = []
    effusion, air = scene.find("pleural effusion"), scene.find("pneumothorax")
    for f in effusion:
        s = "s" if f.side == "both" else ""
        be, a = ("are", "") if f.side == "both" else ("is", "a ")
        texts.append(
            pick(
                f"there {be} {a}{degree(f)} {_side(f)} pleural effusion{s}",
                f"{degree(f)} {_side(f)} pleural effusion{s}",
                f"{a}{degree(f)} {_side(f)} pleural effusion{s} with meniscus sign {be} noted",
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


def _bones(scene: Scene, pick: Pick, rng: np.random.Generator) -> list[str]:
    for f in scene.find("fracture"):
        if f.kind == "clavicle":
            return [
                pick(
                    f"there is a displaced fracture of the {f.side} clavicle",
                    f"displaced {f.side} clavicular fracture",
                    f"the {f.side} clavicle is fractured with displacement",
                )
            ]
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


def _changes(scene: Scene, prior: Scene, progression: Mapping[str, Progress], pick: Pick) -> list[str]:
    if not progression:
        return [
            pick(
                "no significant change since the prior study",
                "compared with the prior study, no relevant change",
            )
        ]
    texts = []
    for label, change in progression.items():
        f = scene.find(label)[0]
        name = _name(f)
        have = "have" if name.endswith("effusions") else "has"
        be = "are" if have == "have" else "is"
        since = pick(
            "compared with the prior study, ",
            "in comparison with the previous radiograph, ",
            "since the prior exam, ",
        )
        if change == "stable":
            texts.append(since + pick(f"the {name} {be} unchanged", f"the {name} {be} stable"))
        elif change == "improving":
            texts.append(since + pick(f"the {name} {have} improved", f"the {name} {have} decreased"))
        elif prior.find(label):
            texts.append(since + pick(f"the {name} {have} worsened", f"the {name} {have} increased"))
        else:
            texts.append(since + pick(f"the {name} {be} new", f"the {name} {have} newly appeared"))
    return texts


_TREND = {
    "stable": ("unchanged", "stable"),
    "improving": ("improved", "decreasing"),
    "worsening": ("worsened", "increasing"),
}


def _impression(
    scene: Scene,
    prior: Scene | None,
    progression: Mapping[str, Progress],
    pick: Pick,
    rng: np.random.Generator,
) -> str:
    """The positive findings, worst first as drawn by lot, with their trend; or the normal phrase."""
    items: list[str] = []
    serious = [f for f in scene.findings if f.label != "support devices"]
    for i in rng.permutation(len(serious)):
        f = serious[int(i)]
        text = _short(f, pick)
        if f.label in progression:
            known = prior is not None and bool(prior.find(f.label))
            trend = pick(*_TREND[progression[f.label]]) if known else "new"
            text += f", {trend}" + pick("", " since the prior study")
        items.append(text)
    if scene.find("support devices") and (not serious or rng.random() < 0.4):
        items.append(pick("support devices as described", "support devices in place"))
    if not serious:
        items.insert(
            0,
            pick(
                "no acute cardiopulmonary abnormality", "no acute cardiopulmonary process", "no acute disease"
            ),
        )
    return _numbered(items, rng)


def _numbered(items: Sequence[str], rng: np.random.Generator) -> str:
    if len(items) > 1 and rng.random() < 0.4:
        return " ".join(f"{i}. {sentence(text)}" for i, text in enumerate(items, 1))
    return " ".join(sentence(text) for text in items)


def _short(f: Finding, pick: Pick) -> str:
    match f.label:
        case "fracture":
            return f"displaced {f.side} {'clavicle fracture' if f.kind == 'clavicle' else 'rib fractures'}"
        case "enlarged cardiomediastinum":
            return pick("widened upper mediastinum", "enlarged cardiomediastinal contour")
        case "cardiomegaly":
            return pick(f"{degree(f)} cardiomegaly", "cardiomegaly")
        case "lung lesion":
            return f"{zone(f)} {'mass' if f.kind == 'mass' else 'nodule'}"
        case "lung opacity":
            return f"{zone(f)} opacity"
        case "consolidation":
            return pick(f"{lobe(f)} consolidation", f"{degree(f)} consolidation in the {lobe(f)}")
        case _:
            return pick(_name(f), f"{degree(f)} {_name(f)}")
