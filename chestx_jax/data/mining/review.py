"""The systematic review of a film, region by region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from chestx_jax.data.mining.facts import Fact
from chestx_jax.data.mining.sources import is_normal, label_findings, labels_of
from chestx_jax.data.mining.teller import Teller, lower
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
_TURNS = (
    "I {first} with the {region}.",
    "The {region} {verb} next.",
    "I go on to the {region}.",
    "Then I look at the {region}.",
    "Turning to the {region}, I note the following.",
)
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


def findings_review(teller: Teller, extra: tuple[Fact, ...] = (), skip_empty: bool = False) -> Iterator[str]:
    """One step a region of which something is known."""
    facts = (*teller.facts.affirmed, *extra)
    first = True
    for region in _REGIONS:
        sentences = teller.rest([fact for fact in facts if region_of(fact.finding.concept) == region])
        sentences += teller.denials(one for one in teller.facts.denied if region_of(one.concept) == region)
        if not sentences:
            continue
        yield " ".join([_turn(region, first and not skip_empty, teller), *sentences])
        first = False


def _turn(region: str, first: bool, teller: Teller) -> str:
    plural = region in ("lungs", "bones", "heart and mediastinum", "pleura and diaphragm")
    if first:
        return f"I {teller.rng.choice(('begin', 'start'))} with the {region}."
    return teller.rng.choice(_TURNS[1:]).format(region=region, verb="come" if plural else "comes")


def normal_review(teller: Teller) -> list[str]:
    """What makes a film normal: what the report denies, else the core of a normal film."""
    denied = list(teller.facts.denied)
    if len(denied) < 2:
        denied += [_denial(concept) for concept, _ in CORE]
    return [*teller.rest(teller.facts.affirmed), *teller.denials(denied)]


def _denial(concept: str) -> Finding:
    place = load().concepts[concept].place
    return Finding(concept, "absent", "definite", None, place, None, None, 0, 0, 0, 0)
