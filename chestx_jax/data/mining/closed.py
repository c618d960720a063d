"""Reasoning about questions with options: one step an option, and the yes-no question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from chestx_jax.data.mining.facts import Fact
from chestx_jax.data.mining.review import findings_review, normal_review
from chestx_jax.data.mining.sources import answer_findings, asked_label, is_normal, label_findings, labels_of
from chestx_jax.data.mining.teller import Teller, claims, faithful, silent
from chestx_jax.data.mining.wording import capital, listed, looks, named, phrase, words_of
from chestx_jax.data.schema import LETTERS, Sample
from chestx_jax.radiology import Finding, load

_EVIDENCE = 3
"""Facts that are told for one label, at most."""
_REST = 4
"""Sentences on what no option asks for, at most."""
_NORMAL = (
    "Option {letter} would be a film without findings.",
    "Option {letter} stands for a normal film.",
    "For option {letter} all regions would have to be normal.",
)
_ANNOUNCE = (
    "To assess option {letter} ({text}), I look at {look}.",
    "To decide on option {letter} ({text}), I look at {look}.",
    "I check {look} for option {letter} ({text}).",
    "I look at {look} to judge option {letter} ({text}).",
    "I examine {look} for option {letter} ({text}).",
    "Option {letter} would be {text}, so I check {look}.",
    "Option {letter} ({text}) would be seen in {look}.",
    "For option {letter} ({text}) I turn to {look}.",
    "Option {letter} is {text}: {look} would show it.",
)
_SIGNS = (
    "Option {letter} ({text}) would show as {sign}, so I check {look}.",
    "To assess option {letter} ({text}), I search {look} for {sign}.",
    "For option {letter} ({text}) I look for {sign} in {look}.",
)
_ZONES = {
    "apex": "upper",
    "upper lobe": "upper",
    "base": "lower",
    "lower lobe": "lower",
    "retrocardiac": "lower",
    "hilum": "hilum",
}
"""Places that are clearly apart where they are in different zones."""
_PLAIN = "For option {letter} I look at {look}."
_FAMILIES = ("lung opacity", "lung lesion", "support devices")
"""Labels that stand for many findings: "atelectasis, a form of lung opacity"."""
_FITS = ("so option {} fits", "which agrees with option {}", "and this is what option {} names")
_OUT = (
    "so option {} does not fit",
    "so option {} can be set aside",
    "so option {} drops out",
    "which speaks against option {}",
)
_ELSEWHERE = (
    "which is not where option {} has it",
    "but this is another place than that of option {}",
)
_WEAK = (
    "but another option describes the film better than option {}",
    "though this alone does not make option {} the best answer",
)
_APART = {
    _FITS: "So option {} fits.",
    _OUT: "So option {} does not fit.",
    _ELSEWHERE: "Its place is not that of option {}.",
    _WEAK: "Another option is closer than option {}.",
}


def option_steps(sample: Sample, teller: Teller) -> Iterator[str]:
    """One step an option, in their order, then what else is seen."""
    assert sample.options is not None
    for letter, option in zip(LETTERS, sample.options, strict=False):
        teller.begin()
        labels = labels_of(option)
        right = letter == sample.answer
        told = [sentence for label in labels for sentence in _label(label, right, teller)]
        closing = _FITS if right else _verdict(labels, teller)
        yield " ".join([*_announced(letter, option, teller), *_closed(told, letter, closing, teller)])
    if rest := teller.rest(teller.facts.affirmed, also=True):
        yield " ".join(rest[:_REST])


def _closed(told: list[str], letter: str, closing: tuple[str, ...], teller: Teller) -> list[str]:
    """The observations with what they mean for the option, in the last sentence where that changes none of its
    claims."""
    if not told:
        return [_APART[closing].format(letter)]
    fitting = [one for one in closing if ", which" not in told[-1] or not one.startswith("which")]
    joined = f"{told[-1][:-1]}, {teller.rng.choice(fitting).format(letter)}."
    if claims(joined) == claims(told[-1]):
        return [*told[:-1], joined]
    return [*told, _APART[closing].format(letter)]


def _announced(letter: str, option: str, teller: Teller) -> list[str]:
    if is_normal(option):
        return [teller.rng.choice(_NORMAL).format(letter=letter)]
    found = [finding for label in labels_of(option) for finding in label_findings(label)]
    look = _places(found)
    text = (
        listed([named(label) for label in labels_of(option)]) if option.strip() else "nothing in particular"
    )
    sign = words_of(found[0].concept).sign if len(found) == 1 else ""
    for forms in (_SIGNS, _ANNOUNCE) if sign and teller.rng.random() < 0.5 else (_ANNOUNCE,):
        candidates = [one.format(letter=letter, text=text, look=look, sign=sign) for one in forms]
        if quiet := [one for one in candidates if silent(one)]:
            return [teller.rng.choice(quiet)]
    return [_PLAIN.format(letter=letter, look=look)]


def _places(found: Sequence[Finding]) -> str:
    """Where findings are looked for."""
    return listed(
        list(dict.fromkeys(looks(one.concept, one.anatomy) for one in found))[:3] or ["the whole film"]
    )


def _label(label: str, right: bool, teller: Teller) -> list[str]:
    if is_normal(label):
        return normal_review(teller) if right else ["There are findings on this film."]
    found = label_findings(label)
    if not found:
        return [f"The image shows {named(label)}." if right else f"I see no {named(label)}."]
    if right:
        return [sentence for finding in _once(found) for sentence in affirmation(finding, teller)]
    return list(dict.fromkeys(sentence for finding in _once(found) for sentence in _denial(finding, teller)))


def _once(found: Sequence[Finding]) -> list[Finding]:
    """One finding a concept: "degenerative osteophyte formation" names it twice."""
    return list({finding.concept: finding for finding in reversed(found)}.values())[::-1]


def _verdict(labels: Sequence[str], teller: Teller) -> tuple[str, ...]:
    """What the observations mean for a wrong option: out where one of its labels was denied, or seen in another
    place; weak where all of it may be said to be there."""
    if any(_refuted(label, teller) for label in labels):
        return _OUT
    return _ELSEWHERE if len(labels) == 1 and _elsewhere(labels[0], teller) else _WEAK


def _refuted(label: str, teller: Teller) -> bool:
    if is_normal(label):
        return True
    found = label_findings(label)
    return not found or any(teller.facts.can_deny(finding) for finding in found)


def _elsewhere(label: str, teller: Teller) -> bool:
    """Whether all that bears a label out lies in another zone than the label's."""
    for finding in label_findings(label):
        places = [fact.finding.anatomy for fact in _evidence(finding, teller)]
        zones = {_ZONES.get(place or "") for place in places}
        if not zones or None in zones or _ZONES.get(finding.anatomy or "") in (None, *zones):
            return False
    return True


def affirmation(finding: Finding, teller: Teller) -> list[str]:
    """The facts that bear a label out, and the label itself where they say it in other words."""
    evidence = teller.facts.bearing_out(finding)[:_EVIDENCE]
    sentences = teller.tell(evidence)
    concepts = {fact.finding.concept for fact in evidence}
    if finding.concept in concepts:
        return sentences
    if any(finding.concept in load().ancestors[concept] for concept in concepts):
        if finding.concept not in _FAMILIES or not sentences:
            return sentences
        kind = f"{sentences[-1][:-1]}, which counts as {phrase(replace(finding, laterality=None)).text}."
        if faithful(kind, [evidence[-1].finding]):
            return [*sentences[:-1], kind]
    return [*sentences, *teller.tell([Fact(finding)])]


def _denial(finding: Finding, teller: Teller) -> list[str]:
    if teller.facts.can_deny(finding):
        return teller.deny(finding)
    return teller.tell(_evidence(finding, teller))


def _evidence(finding: Finding, teller: Teller) -> list[Fact]:
    """What keeps a wrong option's finding from being denied."""
    return teller.facts.bearing_out(replace(finding, laterality=None))[:2]


def binary_steps(sample: Sample, teller: Teller) -> Iterator[str]:
    """The asked label, what is near it, what else is seen."""
    wanted = answer_findings(sample)
    yes = sample.answer_text.lower() == "yes"
    look = _places(wanted)
    opening = teller.rng.choice(("I look at {} first.", "This is judged by {}.", "I begin with {}.")).format(
        look
    )
    told = []
    for finding in wanted:
        if yes:
            told += affirmation(finding, teller)
        elif teller.facts.can_deny(finding):
            told += teller.deny(finding)
        else:
            told += teller.tell(teller.facts.bearing_out(replace(finding, polarity="present")))
    yield " ".join([opening, *(told or [f"{capital(asked_label(sample))} is {'' if yes else 'not '}seen."])])
    yield from findings_review(teller, begun=True)
