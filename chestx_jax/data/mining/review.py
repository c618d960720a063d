"""The systematic review of a film, region by region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from chestx_jax.data.mining.facts import WHOLE_FILM, Fact
from chestx_jax.data.mining.sources import is_normal, label_findings, labels_of
from chestx_jax.data.mining.teller import Teller, claims, lower
from chestx_jax.data.schema import Sample
from chestx_jax.radiology import Finding, load

_REGIONS: Mapping[str, tuple[str, ...]] = {
    "heart and mediastinum": (
        "heart",
        "mediastinum",
        "cardiomediastinal silhouette",
        "aorta",
        "pulmonary vasculature",
        "pulmonary artery",
        "hilum",
        "lymph nodes",
        "trachea",
    ),
    "lungs": ("lung",),
    "pleura and diaphragm": ("pleura", "costophrenic angle", "fissure", "diaphragm"),
    "bones": ("bones", "ribs", "spine", "clavicle", "shoulder", "sternum"),
    "rest of the film": (),
}
_FIRST = ("First the {region}: {sentence}", "I begin with the {region}: {sentence}")
_TURNS = ("As to the {region}, {sentence}", "Next, {sentence}", "Then the {region}: {sentence}", "{plain}")
_PLAIN = ("Next, {sentence}", "{plain}", "After that, {sentence}")
CORE = (
    ("cardiomegaly", "absent"),
    ("lung opacity", "absent"),
    ("pleural effusion", "absent"),
    ("pneumothorax", "absent"),
)
"""What is read as normal in a normal film whose report denies nothing in particular."""


def region_of(concept: str) -> str:
    """The region that a concept is told under."""
    entry = load().concepts[concept]
    if entry.made:
        return "rest of the film"
    return next((name for name, places in _REGIONS.items() if entry.place in places), "rest of the film")


def anomaly_steps(sample: Sample, teller: Teller) -> Iterator[str]:
    """The review of an open question; what the answer names and the report does not is told in its region."""
    extra: list[Finding] = []
    for label in labels_of(sample.answer_text):
        for finding in label_findings(label):
            if not teller.facts.bearing_out(finding):
                extra.append(finding)
    unknown = [
        label for label in labels_of(sample.answer_text) if not is_normal(label) and not label_findings(label)
    ]
    yield from findings_review(teller, tuple(Fact(finding) for finding in extra))
    for label in unknown:
        yield f"The image also shows {lower(label)}."


def findings_review(teller: Teller, extra: tuple[Fact, ...] = (), begun: bool = False) -> Iterator[str]:
    """One step a region of which something is known. `begun`: other steps went before."""
    facts = (*teller.facts.affirmed, *extra)
    for region in _REGIONS:
        sentences = teller.rest([fact for fact in facts if region_of(fact.finding.concept) == region])
        denied = [one for one in teller.facts.denied if one.concept not in WHOLE_FILM]
        sentences += teller.denials(one for one in denied if region_of(one.concept) == region)
        if region == "lungs" and sentences and teller.facts.otherwise_clear:
            sentences.append(
                teller.rng.choice(("Otherwise the lungs are clear.", "The lungs are otherwise clear."))
            )
        if sentences:
            yield " ".join([_turn(region, sentences[0], _TURNS if begun else _FIRST, teller), *sentences[1:]])
            begun = True


def _turn(region: str, sentence: str, turns: tuple[str, ...], teller: Teller) -> str:
    """The first sentence of a region, led in where that changes none of its claims."""
    if any(word in sentence for word in region.split(" and ")):
        turns = _PLAIN
    led = teller.rng.choice(turns).format(region=region, sentence=lower(sentence), plain=sentence)
    return led if claims(led) == claims(sentence) else sentence


def normal_review(teller: Teller) -> list[str]:
    """What makes a film normal: what the report denies, else the core of a normal film."""
    denied = [one for one in teller.facts.denied if one.concept not in WHOLE_FILM]
    if len(denied) < 2:
        denied += [_denial(concept) for concept, _ in CORE]
    seen, normal = teller.rest(teller.facts.affirmed), teller.denials(denied)
    if seen and normal:
        apart = f"Apart from that, {lower(normal[0])}"
        normal[0] = apart if claims(apart) == claims(normal[0]) else normal[0]
    return [*seen, *normal]


def _denial(concept: str) -> Finding:
    place = load().concepts[concept].place
    return Finding(concept, "absent", "definite", None, place, None, None, 0, 0, 0, 0)
