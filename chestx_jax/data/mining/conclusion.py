"""Whether the last step of a reasoning names the right answer."""

from __future__ import annotations

import re
from functools import lru_cache

from chestx_jax.data.mining.sources import answer_findings, is_normal, label_findings, labels_of
from chestx_jax.data.schema import LETTERS, Sample
from chestx_jax.radiology import Finding, extract_findings, relation

_LETTER = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice)s?(?: is)?:? \(?([A-Z])\b(?!['’])"
    r"|\banswer(?: is| would be|:)*:? ?\(?([A-Z])\b(?=[,.;:)]| [-–—]|$)"
    r"|(?<!\w)\(?([A-Z])\)"
)
_LETTERS = re.compile(r"\b(?:[Oo]ption|[Cc]hoice)s [A-Z](?:(?:,|,? and|,? or) [A-Z]\b)+")
_WORD = re.compile(r"[a-z]+|\d+")
_STOP = frozenset(
    ["a", "an", "the", "of", "in", "on", "at", "to", "with", "and", "or", "is", "are", "involving"]
)


def names_answer(step: str, sample: Sample) -> bool:
    """Whether a step names the answer: its letter and no other, or its words, or findings that claim it.

    An answer in words is named when each of its labels is: all content words of the label are in the step, or
    the step asserts what the label claims. Another option must not be named instead.
    """
    letters = {next(filter(None, groups)) for groups in _LETTER.findall(step)}
    letters.update(re.findall(r"\b[A-Z]\b", " ".join(_LETTERS.findall(step))))
    if sample.options is not None and letters and not _excluded(letters, sample):
        return letters == {sample.answer}
    found = [finding for finding in extract_findings(step) if finding.asserted]
    if sample.task == "binary":
        return _claims(found, answer_findings(sample))
    if sample.task == "temporal":
        return _only_word(step, sample)
    return all(_named(label, step, found) for label in labels_of(sample.answer_text)) and not any(
        _words(option) > _words(sample.answer_text) and _words(option) <= _words(step)
        for option in sample.options or ()
    )


def _excluded(letters: set[str], sample: Sample) -> bool:
    """Whether all the other options are named, as in "none of A, B and C fits": the answer is then in words."""
    return len(letters) > 1 and letters == set(LETTERS[: len(sample.options or ())]) - {sample.answer}


def _named(label: str, step: str, found: list[Finding]) -> bool:
    if is_normal(label):
        return any(is_normal(phrase) for phrase in re.findall(r"no finding|normal", step.lower()))
    return _words(label) <= _words(step) or _claims(found, label_findings(label))


def _claims(found: list[Finding], wanted: tuple[Finding, ...]) -> bool:
    """Whether all of `wanted` are among `found`; kin will do ("nodule" for "lung lesion")."""
    return bool(wanted) and all(
        any(relation(one, two) in ("same", "side", "entailed", "kin") for one in found) for two in wanted
    )


def _only_word(step: str, sample: Sample) -> bool:
    words = _words(step)
    return [option for option in sample.options or () if _words(option) <= words] == [sample.answer_text]


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[str]:
    """Content words, lower case, without a plural's s."""
    return frozenset(word.rstrip("s") for word in _WORD.findall(text.lower()) if word not in _STOP)
