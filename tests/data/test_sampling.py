"""Samplings: balanced ones tell nothing by their text, published ones have the published counts."""

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from chestx_jax.data.questions import SAMPLINGS, Ballot, ballot_of, build_questions
from chestx_jax.data.schema import LABELS, TASKS, Sample, Study
from chestx_jax.data.shortcuts import accuracy, chance, learned_accuracies, majority

COMMON = {"support devices": 0.3, "lung opacity": 0.25, "cardiomegaly": 0.1, "edema": 0.05, "fracture": 0.02}


def collection(count: int, seed: int = 1) -> list[Study]:
    """Studies with common and rare findings, some uncertain; most of them with a change of edema."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        labels: dict[str, int | None] = {
            label: int(rng.random() < COMMON.get(label, 0.01)) for label in LABELS
        }
        labels[rng.choice(LABELS)] = rng.choice((-1, None, 0))
        state = rng.choices(("stable", "worsening", "improving"), (6, 2, 1))[0]
        prior = Study(f"p{i}", "a", (Path("p.png"),)) if i % 3 else None
        progression = {"edema": state, "pneumonia": "stable"} if prior else {}
        split = "test" if i % 4 == 0 else "train"
        made.append(
            Study(
                str(i),
                "a",
                (Path("x.png"),),
                labels=labels,
                split=split,
                prior=prior,
                progression=progression,
            )
        )
    return made


STUDIES = collection(1500)
BALLOTS = [[ballot_of(s, study, str(study.split)) for s in build_questions(study)] for study in STUDIES]


def ballots(count: int) -> list[Ballot]:
    """Those of the first `count` studies."""
    return [ballot for group in BALLOTS[:count] for ballot in group]


@cache
def sample(sampling: str) -> dict[str, list[Sample]]:
    """split -> its elected samples."""
    elected = SAMPLINGS[sampling](ballots(len(STUDIES)), 0)
    found: dict[str, list[Sample]] = {"train": [], "test": []}
    for study in STUDIES:
        found[str(study.split)] += build_questions(study, TASKS, 0, elected)
    assert sum(map(len, found.values())) == len(elected)
    return found


def of(samples: Sequence[Sample], task: str) -> list[Sample]:
    return [sample for sample in samples if sample.task == task]


def test_published_questions_can_be_answered_from_their_text() -> None:
    found = sample("published")
    for task, least in (("single", 0.45), ("multiple", 0.45), ("temporal", 0.6)):
        learned = learned_accuracies(of(found["train"], task), of(found["test"], task))
        assert max(s.accuracy for s in learned) > least


@pytest.mark.parametrize("task", ["binary", "single", "multiple", "temporal"])
def test_balanced_questions_cannot(task: str) -> None:
    found = sample("balanced")
    train, test = of(found["train"], task), of(found["test"], task)
    assert len(test) > 20
    for learned in learned_accuracies(train, test):
        assert learned.accuracy <= chance(test) + 0.05
    for split in (train, test):
        assert accuracy(split, majority(split)) <= chance(split) + (0.02 if task == "temporal" else 1e-9)


def test_each_set_of_options_has_each_answer_equally_often() -> None:
    for task in ("single", "multiple"):
        for split in sample("balanced").values():
            right = Counter((frozenset(s.options or ()), s.answer_text) for s in of(split, task))
            sets = {options for options, _ in right}
            for options in sets:
                assert len({right[options, answer] for answer in options}) == 1
            assert len(sets) > 3


def test_wrong_options_are_known_to_be_wrong() -> None:
    labels = {study.id: study.labels for study in STUDIES}
    for split in sample("balanced").values():
        for question in of(split, "single") + of(split, "multiple"):
            for option in set(question.options or ()) - {question.answer_text}:
                values = [labels[question.study].get(label) for label in option.split(", ")]
                if option == "no finding":
                    assert 1 in labels[question.study].values()
                else:
                    assert 0 in values and set(values) <= {0, 1}


def test_balanced_progressions_by_label() -> None:
    found = of(sample("balanced")["train"], "temporal")
    counts = Counter((s.extra["label"], s.answer) for s in found)
    assert counts["edema", "A"] == counts["edema", "B"] == counts["edema", "C"] > 20
    assert {label for label, _ in counts} == {"edema"}  # pneumonia is always stable: nothing to ask


def test_no_open_answer_is_more_than_a_tenth() -> None:
    found = of(sample("balanced")["train"], "anomaly")
    assert max(Counter(s.answer for s in found).values()) <= 0.1 * len(found)


def test_published_counts() -> None:
    found = sample("published")["train"]
    binary = Counter((s.extra["label"], s.answer) for s in of(found, "binary"))
    assert binary["edema", "B"] == binary["support devices", "A"] == 200 == max(binary.values())
    assert 0 < binary["fracture", "A"] < 200  # all there are
    single = [Ballot(f"{i}", "single", "train", "", "edema", frozenset()) for i in range(500)]
    assert len(SAMPLINGS["published"](single, 0)) == 400


def test_everything_keeps_all_but_the_binary_surplus() -> None:
    built = {s.id for study in STUDIES for s in build_questions(study) if s.task != "binary"}
    found = {s.id for split in sample("everything").values() for s in split if s.task != "binary"}
    assert found == built
    for split in sample("everything").values():
        counts = Counter((s.extra["label"], s.answer) for s in of(split, "binary"))
        assert all(counts[label, "A"] == counts[label, "B"] for label, _ in counts)


@pytest.mark.parametrize("sampling", list(SAMPLINGS))
def test_same_seed_same_election_in_any_order(sampling: str) -> None:
    given = ballots(300)
    elected = SAMPLINGS[sampling](given, 0)
    assert elected == SAMPLINGS[sampling](given, 0)
    assert elected == SAMPLINGS[sampling](given[::-1], 0)
    assert sampling == "everything" or elected != SAMPLINGS[sampling](given, 1)


@pytest.mark.parametrize("sampling", ["published", "everything"])
def test_more_studies_change_few_questions(sampling: str) -> None:
    fewer, more = (SAMPLINGS[sampling](ballots(n), 0) for n in (1000, 1002))
    assert len(fewer.keys() - more.keys()) <= 2 * len(LABELS)
