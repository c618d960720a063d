"""Reasoning about questions with options: one step an option, and the yes-no question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chestx_jax.data.mining.facts import Fact
from chestx_jax.data.mining.review import findings_review, normal_review
from chestx_jax.data.mining.sources import answer_findings, asked_label, is_normal, label_findings, labels_of
from chestx_jax.data.mining.teller import Teller, faithful, silent
from chestx_jax.data.mining.wording import capital, listed, looks, phrase, words_of
from chestx_jax.data.schema import LETTERS, Sample
from chestx_jax.radiology import Finding, load

_EVIDENCE = 3
"""Facts that are told for one label, at most."""
_ANNOUNCE = (
    "For option {letter}, {text}, I look at {look}.",
    "To judge option {letter}, {text}, I look at {look}.",
    "I check {look} for option {letter}, {text}.",
    "For option {letter} I look for {text} at {look}.",
    "Option {letter} would need {text}, so I look at {look}.",
)
_PLAIN = "For option {letter} I look at {look}."
_FITS = ("This fits option {letter}.", "So option {letter} holds.", "That agrees with option {letter}.")
_OUT = (
    "So option {letter} does not fit.",
    "Option {letter} can be set aside.",
    "This speaks against option {letter}.",
    "Option {letter} therefore drops out.",
)
_WEAK = (
    "Option {letter} does not describe the film best.",
    "That alone does not make option {letter} the best answer.",
    "Another option describes the film better than option {letter}.",
)


def option_steps(sample: Sample, teller: Teller) -> Iterator[str]:
    """One step an option, in their order, then what else is seen."""
    assert sample.options is not None
    for letter, option in zip(LETTERS, sample.options, strict=False):
        labels = labels_of(option)
        right = letter == sample.answer
        told = [sentence for label in labels for sentence in _label(label, right, sample, teller)]
        sentences = [*_announced(letter, option, teller), *told]
        closing = (
            _FITS if right else _OUT if any(_refuted(label, sample, teller) for label in labels) else _WEAK
        )
        sentences.append(teller.rng.choice(closing).format(letter=letter))
        yield " ".join(sentences)
    if rest := teller.rest(teller.facts.affirmed):
        yield " ".join(rest[:4])


def _announced(letter: str, option: str, teller: Teller) -> list[str]:
    if is_normal(option):
        return [f"Option {letter} would be a film without findings."]
    found = [finding for label in labels_of(option) for finding in label_findings(label)]
    look = listed(
        list(dict.fromkeys(looks(one.concept, one.anatomy) for one in found))[:3] or [looks("calcification")]
    )
    text = (
        listed([_named(label) for label in labels_of(option)]) if option.strip() else "nothing in particular"
    )
    candidates = [one.format(letter=letter, text=text, look=look) for one in _ANNOUNCE]
    plain = _PLAIN.format(letter=letter, look=look)
    return [teller.rng.choice([one for one in candidates if silent(one)] or [plain])]


def _named(label: str) -> str:
    """The label as part of a sentence, with an article where it is a plain name of what can be counted."""
    found = label_findings(label)
    text = label[:1].lower() + label[1:] if not label[:2].isupper() else label
    if len(found) == 1 and words_of(found[0].concept).noun == text:
        return phrase(found[0]).text
    return text


def _label(label: str, right: bool, sample: Sample, teller: Teller) -> list[str]:
    if is_normal(label):
        return normal_review(teller) if right else ["There are findings on this film."]
    found = label_findings(label)
    if not found:
        return [f"The image shows {_named(label)}." if right else f"I see no {_named(label)}."]
    if right:
        return [sentence for finding in found for sentence in affirmation(finding, teller)]
    return [sentence for finding in found for sentence in _denial(finding, teller)]


def _refuted(label: str, sample: Sample, teller: Teller) -> bool:
    """Whether a label of a wrong option was denied, or shown to be elsewhere."""
    if is_normal(label):
        return True
    found = label_findings(label)
    return not found or any(teller.facts.can_deny(finding) for finding in found)


def affirmation(finding: Finding, teller: Teller) -> list[str]:
    """The facts that bear a label out, and the label itself where they say it in other words."""
    evidence = teller.facts.bearing_out(finding)[:_EVIDENCE]
    sentences = [teller.affirm(fact) for fact in evidence]
    concepts = {fact.finding.concept for fact in evidence}
    if finding.concept in concepts:
        return sentences
    if any(finding.concept in load().ancestors[concept] for concept in concepts):
        kind = f"{sentences[-1][:-1]}, which is a form of {words_of(finding.concept).noun}."
        if faithful(kind, [evidence[-1].finding]):
            return [*sentences[:-1], kind]
    return [*sentences, teller.affirm(Fact(finding))]


def _denial(finding: Finding, teller: Teller) -> list[str]:
    if teller.facts.can_deny(finding):
        return [teller.deny(finding)]
    evidence = teller.facts.bearing_out(replace(finding, laterality=None))[:2]
    return [teller.affirm(fact) for fact in evidence]


def binary_steps(sample: Sample, teller: Teller) -> Iterator[str]:
    """The asked label, what is near it, what else is seen."""
    wanted = answer_findings(sample)
    yes = sample.answer_text.lower() == "yes"
    look = listed(list(dict.fromkeys(looks(one.concept) for one in wanted)) or [looks("calcification")])
    opening = teller.rng.choice(
        (
            f"{capital(look)} decide this question.",
            f"I look at {look} first.",
            f"The place to look is {look}.",
        )
    )
    told = []
    for finding in wanted:
        if yes:
            told += affirmation(finding, teller)
        elif teller.facts.can_deny(finding):
            told.append(teller.deny(finding))
        else:
            told += [
                teller.affirm(fact) for fact in teller.facts.bearing_out(replace(finding, polarity="present"))
            ]
    yield " ".join([opening, *(told or [f"{capital(asked_label(sample))} is {'' if yes else 'not '}seen."])])
    yield from findings_review(teller, skip_empty=True)
