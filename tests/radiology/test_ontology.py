"""The vocabulary is consistent, and says so when it is not."""

import pytest

from chestx_jax.radiology import LABELS, OntologyError, load
from chestx_jax.radiology.ontology import Concept, _check, _trie, expand, plural


def test_every_label_but_no_finding_is_a_concept_that_feeds_itself() -> None:
    concepts = load().concepts
    assert len(LABELS) == 14 and len(concepts) - 13 >= 60
    for label in LABELS[1:]:
        assert concepts[label].label == label


def test_phrase_syntax() -> None:
    assert set(expand("a|b-c d?")) == {("a",), ("b", "c"), ("a", "d"), ("b", "c", "d")}
    assert list(expand("w/o")) == [("w", "/", "o")]
    assert [plural(word) for word in ("opacity", "pneumothorax", "effusion", "ray", "mass")] == [
        "opacities",
        "pneumothoraxes",
        "effusions",
        "rays",
        "masses",
    ]


def test_closures() -> None:
    ontology = load()
    assert {"lung opacity", "airspace disease"} < ontology.ancestors["consolidation"]
    assert "pneumonia" in ontology.descendants["lung opacity"]
    assert "lung opacity" not in ontology.descendants["consolidation"]


def test_one_phrase_of_two_kinds_is_an_error() -> None:
    entries = [
        ("concepts.toml: mass", "mass", "concept", ("mass", ""), True),
        ("cues.toml: hedge", "masses", "hedge", None, False),
    ]
    with pytest.raises(
        OntologyError, match=r"cues.toml: hedge: phrase 'masses' already belongs to concepts.toml: mass"
    ):
        _trie(entries)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "tumour"}, "label 'tumour' is none of the 14"),
        ({"parents": ("chaos",)}, "unknown parent 'chaos'"),
        ({"place": "knee"}, "unknown place 'knee'"),
        ({"sides": "both"}, "sides 'both'"),
    ],
)
def test_inconsistent_concepts_are_errors(change: dict, message: str) -> None:
    fields = {
        "name": "mass",
        "label": None,
        "parents": (),
        "place": None,
        "sides": "shared",
        "made": False,
    } | change
    with pytest.raises(OntologyError, match=f"concepts.toml: mass: {message}"):
        _check({"mass": Concept(**fields)}, load().places, {})
