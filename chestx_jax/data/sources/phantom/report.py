"""The radiologist's report of a scene, in varied language and always true to it."""

from collections.abc import Mapping, Sequence

import numpy as np

from chestx_jax.data.sources.phantom import findings_section as section
from chestx_jax.data.sources.phantom.scene import Finding, Progress, Scene
from chestx_jax.data.sources.phantom.wording import Pick, degree, lobe, sentence, side, zone


def write(
    scene: Scene,
    rng: np.random.Generator,
    prior: Scene | None = None,
    progression: Mapping[str, Progress] | None = None,
) -> tuple[str, str]:
    """(FINDINGS, IMPRESSION) of a scene, with a comparison when there is a prior."""

    def pick(*texts: str) -> str:
        return texts[int(rng.integers(len(texts)))]

    devices = section.devices(scene, pick, rng)
    heart = section.heart(scene, pick, rng)
    lungs = section.lungs(scene, pick, rng)
    pleura = section.pleura(scene, pick, rng)
    bones = section.bones(scene, pick, rng)
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


def _name(f: Finding) -> str:
    """The finding as a noun phrase without article."""
    match f.label:
        case "consolidation":
            return f"{lobe(f).replace('lingula', 'lingular')} consolidation"
        case "edema":
            return "pulmonary edema"
        case "atelectasis":
            return f"{'bibasilar' if f.side == 'both' else f.side + ' basilar'} atelectasis"
        case "pleural effusion":
            return f"{side(f)} pleural effusion" + ("s" if f.side == "both" else "")
        case _:
            return f"{f.side} {f.label}"


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
            return f"displaced {f.side} rib fractures"
        case "enlarged cardiomediastinum":
            return pick("widened upper mediastinum", "enlarged cardiomediastinal contour")
        case "cardiomegaly":
            return pick(f"{degree(f)} cardiomegaly", "cardiomegaly")
        case "lung lesion":
            return f"{zone(f)} {'mass' if f.kind == 'mass' else 'nodule'}"
        case "lung opacity":
            return f"{zone(f)} opacity"
        case "consolidation":
            return pick(
                f"{lobe(f).replace('lingula', 'lingular')} consolidation",
                f"{degree(f)} consolidation in the {lobe(f)}",
            )
        case _:
            return pick(_name(f), f"{degree(f)} {_name(f)}")
