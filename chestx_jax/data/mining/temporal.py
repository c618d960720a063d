"""Reasoning about how a label changed between a reference image and a new one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chestx_jax.data.mining.facts import Fact, told
from chestx_jax.data.mining.sources import asked_label, label_findings
from chestx_jax.data.mining.teller import Teller
from chestx_jax.data.mining.wording import listed, phrase, words_of
from chestx_jax.data.schema import Sample
from chestx_jax.radiology import Finding, load

_CHANGED = {
    "stable": (
        "Side by side, the {name} has the same extent in both images.",
        "The {name} looks alike in both images.",
        "From the reference image to the new one the {name} stays as it was.",
    ),
    "worsening": (
        "Side by side, the {name} is more extensive in the new image.",
        "From the reference image to the new one the {name} has progressed.",
        "The new image shows more of the {name} than the reference image.",
    ),
    "improving": (
        "Side by side, the {name} is less extensive in the new image.",
        "From the reference image to the new one the {name} has improved.",
        "The new image shows less of the {name} than the reference image.",
    ),
}


def temporal_steps(sample: Sample, teller: Teller) -> Iterator[str]:
    """The reference image, the new image, the comparison. Where one of the reports is silent on the label, the
    answer says what that image must show."""
    label = asked_label(sample)
    finding = label_findings(label)[0]
    prior, _ = told(str(sample.extra.get("prior_report", "")))
    before, after = (_of_label(facts, finding) for facts in (prior, teller.facts.affirmed))
    worse = sample.answer_text == "worsening"
    yield _image("reference image", before, finding, bool(before) or not worse, teller)
    yield _image("new image", after, finding, bool(after) or sample.answer_text != "improving", teller)
    name = words_of(finding.concept).noun
    yield teller.rng.choice(_CHANGED[sample.answer_text]).format(name=name)


def _of_label(facts: Sequence[Fact], finding: Finding) -> list[Fact]:
    """The facts that say the label, those in its own words first; more special ones only without them."""
    same = [fact for fact in facts if fact.finding.concept == finding.concept]
    below = load().descendants[finding.concept]
    return same or [fact for fact in facts if fact.finding.concept in below]


def _image(image: str, facts: list[Fact], finding: Finding, shown: bool, teller: Teller) -> str:
    """What one image shows of the label: what its report says, else what the answer lets one expect."""
    if not shown:
        seen = f"no {words_of(finding.concept).noun}"
    else:
        told = [fact.finding for fact in facts[:2]] or [finding]
        seen = listed([phrase(one).full for one in told])
    return teller.rng.choice(("In the {} I see {}.", "The {} shows {}.")).format(image, seen)
