"""Reasoning about how a label changed between a reference image and a new one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chestx_jax.data.mining.facts import Fact, told
from chestx_jax.data.mining.sources import asked_label, label_findings
from chestx_jax.data.mining.teller import Teller, lower
from chestx_jax.data.mining.wording import looks, phrase, words_of
from chestx_jax.data.schema import Sample
from chestx_jax.radiology import Finding

_CHANGED = {
    "stable": (
        "Side by side, the two images show no difference in the {name}.",
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
    before = [fact for fact in prior if fact.finding.concept == finding.concept]
    after = [fact for fact in teller.facts.affirmed if fact.finding.concept == finding.concept]
    yield _image("reference image", before, _shown_before(sample.answer_text, before), finding, teller)
    yield _image("new image", after, sample.answer_text != "improving" or bool(after), finding, teller)
    name = words_of(finding.concept).noun
    yield teller.rng.choice(_CHANGED[sample.answer_text]).format(name=name)


def _shown_before(answer: str, before: list[Fact]) -> bool:
    return bool(before) or answer != "worsening"


def _image(image: str, facts: list[Fact], shown: bool, finding: Finding, teller: Teller) -> str:
    look = looks(finding.concept)
    if facts:
        said = [phrase(replace(fact.finding, certainty="definite"), fact.many).full for fact in facts[:2]]
        return f"In the {image} I look at {look} and see {' and '.join(said)}."
    if shown:
        return f"In the {image} I look at {look} and see {phrase(finding).full}."
    return f"In the {image} I look at {look}: {lower(f'No clear {words_of(finding.concept).noun} is seen there.')}"
