"""Laws that hold for any text, checked on generated ones."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.radiology import (
    LABELS,
    Finding,
    contradictions,
    extract_findings,
    label_report,
    load,
    match_findings,
)
from chestx_jax.radiology.ontology import TOKEN, expand, plural

from .test_sentences import CASES

# a heading (":") speaks about what follows it, so such sentences are not interchangeable
SENTENCES = [sentence for sentence, _ in CASES if ":" not in sentence and sentence.endswith((".", "?"))]
UNRELATED = (
    "The patient was informed by telephone.",
    "Images were sent to the archive.",
    "XXXX XXXX.",
    "Thank you.",
)
MODIFIED = st.tuples(
    st.sampled_from(["", "small ", "mild ", "large "]),
    st.sampled_from(["", "left ", "right ", "bilateral "]),
    st.sampled_from(
        ["pleural effusion", "pneumothorax", "consolidation", "atelectasis", "lung nodule", "edema"]
    ),
    st.sampled_from(["", " in the left base", " at the right apex", " in the lingula"]),
).map("".join)


def claims(text: str) -> Counter:
    """The multiset of findings without their places in the text."""
    return Counter(_fields(finding) for finding in extract_findings(text))


def _fields(finding: Finding) -> tuple:
    return (
        finding.concept,
        finding.polarity,
        finding.certainty,
        finding.laterality,
        finding.anatomy,
        finding.severity,
        finding.change,
    )


def swap(text: str) -> str:
    return re.sub(
        r"\b(left|right)", lambda m: {"left": "right", "right": "left"}[m[0].lower()], text, flags=re.I
    )


@given(st.data())
def test_the_order_of_sentences_does_not_matter(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(SENTENCES), min_size=2, max_size=6))
    shuffled = data.draw(st.permutations(chosen))
    assert claims(" ".join(chosen)) == claims(" ".join(shuffled))
    assert label_report(" ".join(chosen)) == label_report(" ".join(shuffled))


@given(st.lists(st.sampled_from(SENTENCES), max_size=4), st.sampled_from(UNRELATED), st.integers(0, 4))
def test_an_unrelated_sentence_changes_nothing(chosen: list[str], other: str, at: int) -> None:
    assert claims(" ".join(chosen)) == claims(" ".join([*chosen[:at], other, *chosen[at:]]))


@given(
    st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=4),
    st.sampled_from([" ", "\n", "\n\n", "\n- ", "\n2. "]),
)
def test_layout_does_not_matter(chosen: list[str], joint: str) -> None:
    assert claims(" ".join(chosen)) == claims(joint.join(chosen))


@given(MODIFIED)
def test_negation_flips_and_nothing_else(phrase: str) -> None:
    plain, denied = extract_findings(f"There is a {phrase}."), extract_findings(f"There is no {phrase}.")
    assert plain and {finding.polarity for finding in plain} == {"present"}
    flipped = [("absent" if field == "present" else field for field in _fields(finding)) for finding in plain]
    assert [tuple(fields) for fields in flipped] == [_fields(finding) for finding in denied]


@given(MODIFIED, MODIFIED)
def test_swapping_left_and_right_swaps_laterality(one: str, two: str) -> None:
    text = f"There is a {one} and {two}. No {two}.".replace("lingula", "apex")
    assert _swapped(text) == claims(swap(text))


@pytest.mark.parametrize("sentence", [s for s in SENTENCES if not re.search("lingula|RLL", s)])
def test_swapping_left_and_right_in_the_table(sentence: str) -> None:
    assert _swapped(sentence) == claims(swap(sentence))


def _swapped(text: str) -> Counter:
    other = {"left": "right", "right": "left"}
    return Counter((*f[:3], other.get(f[3], f[3]), *f[4:]) for f in claims(text).elements())


@settings(max_examples=200)
@given(
    st.text()
    | st.lists(st.sampled_from([*SENTENCES, "no", ",", ":", "or", "**", "\n", "İ", "ﬁ"]), max_size=8).map(
        " ".join
    )
)
def test_any_text_is_read_and_spans_hold(text: str) -> None:
    for finding in extract_findings(text):
        assert 0 <= finding.sentence_start <= finding.start < finding.end <= finding.sentence_end <= len(text)
        assert TOKEN.findall(text[finding.start : finding.end].lower())
    assert set(label_report(text)) == set(LABELS)


@given(st.lists(st.sampled_from(SENTENCES), max_size=6).map(" ".join))
def test_a_text_agrees_with_itself(text: str) -> None:
    findings = extract_findings(text)
    agreement = match_findings(findings, findings)
    assert not agreement.pred_only and not agreement.gold_only
    assert all(pair.rule == "same" for pair in agreement.pairs)
    assert agreement.f1 == (1.0 if agreement.pairs else 0.0)


@given(
    st.lists(st.sampled_from(SENTENCES), max_size=5).map(" ".join),
    st.lists(st.sampled_from(SENTENCES), max_size=5).map(" ".join),
)
def test_agreement_is_symmetric_and_bounded(one: str, two: str) -> None:
    there = match_findings(extract_findings(one), extract_findings(two))
    back = match_findings(extract_findings(two), extract_findings(one))
    assert there.credit == back.credit
    assert 0 <= there.precision <= 1 and there.precision == back.recall


@given(st.lists(st.sampled_from(SENTENCES), max_size=5))
def test_contradictions_do_not_depend_on_order(chosen: list[str]) -> None:
    def pairs(text: str) -> int:
        return len(contradictions(extract_findings(text)))

    assert pairs(" ".join(chosen)) == pairs(" ".join(reversed(chosen)))


def test_every_phrase_of_a_concept_is_found_alone() -> None:
    """The trie holds what the data file lists: each concept's own phrases, plural too, mention it."""
    trie = load().trie
    for phrase in ("pleural|subpulmonic effusion", "opacity", "pneumothorax"):
        for tokens in expand(phrase):
            for form in (tokens, (*tokens[:-1], plural(tokens[-1]))):
                node = trie
                for token in form:
                    if token not in node.next:
                        break
                    node = node.next[token]
                else:
                    assert node.entry is not None and node.entry[0] == "concept", form
