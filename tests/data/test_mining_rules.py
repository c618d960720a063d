"""The rule miner: deterministic, verified, in the words of an observation."""

import pickle
import random
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from chestx_jax.data import read_samples
from chestx_jax.data.mining import mine_rules, verify
from chestx_jax.data.mining.teller import silent
from chestx_jax.data.mining.wording import absent, present, says, words_of
from chestx_jax.data.questions import build_questions
from chestx_jax.data.schema import Sample, Study
from chestx_jax.radiology import Finding, label_report, load
from tests.data.mining_samples import OPTIONS, anomaly, binary, single, temporal

RADRBENCH = Path(__file__).resolve().parents[3] / "shared/data/radrbench/openi_samples.jsonl"
NORMAL = "FINDINGS: The lungs are clear. The heart is normal in size. No pleural effusion or pneumothorax."
RICH = (
    "FINDINGS: Stable moderate cardiomegaly. Small bilateral pleural effusions, increased. Patchy opacity in the "
    "left base, possibly pneumonia. Otherwise clear lungs. No pneumothorax. Right PICC line. Degenerative changes "
    "of the spine. IMPRESSION: Effusions and cardiomegaly as described, unchanged from the prior XXXX."
)


def test_the_same_seed_gives_the_same_steps_and_another_one_other_words() -> None:
    sample = single(report=RICH)
    assert mine_rules(sample, 0) == mine_rules(sample, 0)
    assert len({mine_rules(sample, seed).reason_steps for seed in range(5)}) > 1
    mined = mine_rules(sample, 0)
    assert mined.reason_steps and mined.report == sample.report
    assert pickle.loads(pickle.dumps(mine_rules))(sample, 0) == mined


def test_one_step_an_option_between_problem_and_conclusion() -> None:
    steps = mine_rules(single(), 0).reason_steps
    for letter, step in zip("ABCD", steps[1:5], strict=True):
        assert f"option {letter}" in step or f"Option {letter}" in step
    assert re.search(r"small pleural effusion .*on the left", steps[2])
    assert re.search(r"answer is B, pleural effusion\.$", steps[-1])


def samples(report: str) -> Iterator[Sample]:
    """All questions that the report answers by its own labels, and some that it leaves open."""
    labels = {name: value for name, value in label_report(report).items() if value in (0, 1)}
    study = Study(id="1", source="test", images=(Path("a.png"),), findings=report, labels=labels)
    yield from build_questions(study)
    for label in ("fracture", "support devices", "lung lesion"):
        if labels.get(label) is None:
            yield binary(label, False, report=report)


@pytest.mark.parametrize(
    "report", [NORMAL, RICH, "IMPRESSION: No acute disease.", "FINDINGS: PICC line. Left effusion."]
)
@pytest.mark.parametrize("seed", range(4))
def test_what_is_mined_passes_verification(report: str, seed: int) -> None:
    mined = [mine_rules(sample, seed) for sample in samples(report)]
    assert mined
    for sample in mined:
        found = verify(sample)
        assert found.ok, (sample.reason_steps, found.reasons)
        assert "contradicted" not in found.verdicts


def test_evidence_of_the_report_is_told_with_side_place_and_degree() -> None:
    text = " ".join(mine_rules(anomaly("cardiomegaly, pleural effusion", report=RICH), 0).reason_steps)
    for words in (
        "moderately ",
        "small pleural effusions",
        "left lung base",
        "spine",
        "central venous catheter",
    ):
        assert words in text
    assert "Otherwise the lungs are clear" in text or "The lungs are otherwise clear" in text


@pytest.mark.parametrize("seed", range(6))
def test_neither_doubt_nor_change_nor_source_is_told(seed: int) -> None:
    text = " ".join(
        step for sample in samples(RICH) for step in mine_rules(sample, seed).reason_steps
    ).lower()
    for word in (
        "report",
        "xxxx",
        "unchanged",
        "stable",
        "increased,",
        "prior",
        "possibl",
        "mention",
        "described",
    ):
        assert word not in text


def test_what_no_report_mentions_is_an_observation_of_the_normal() -> None:
    steps = mine_rules(single(), 0).reason_steps
    assert re.search(r"no fracture", steps[4].lower())


def test_a_wrong_option_that_the_report_affirms_is_not_denied() -> None:
    sample = single(report="Left pleural effusion. Cardiomegaly.")
    mined = mine_rules(sample, 0)
    assert not re.search(r"not enlarged|normal in size|within normal", " ".join(mined.reason_steps))
    assert verify(mined).ok


def test_an_answer_that_the_report_denies_ends_in_quarantine() -> None:
    found = verify(mine_rules(binary("cardiomegaly", True), 0))
    assert "step 2: contradicted by the report: present cardiomegaly" in found.reasons


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_told_twice_in_a_step(seed: int) -> None:
    options = ("granuloma in lung, granulomas of lung", "scar in left lung, left lung scar", *OPTIONS[2:])
    sample = single(options=options, answer="A", answer_text=options[0], report="Left midlung granulomas.")
    for step in mine_rules(sample, seed).reason_steps[1:-1]:
        seen = step.split(". ", 1)[1]  # what follows the announcement
        assert seen.lower().count("granuloma") + seen.lower().count("scar") <= 1, step


@pytest.mark.parametrize("seed", range(8))
def test_what_lies_in_another_zone_than_an_option_has_it_is_said_to(seed: int) -> None:
    options = ("opacity in right upper lobe", *OPTIONS[1:])
    elsewhere = mine_rules(single(options=options, report="Small effusion. Nodule at the right base."), seed)
    assert re.search(
        r"not where option A|place than that of option A|not that of option A", elsewhere.reason_steps[1]
    )
    there = mine_rules(single(options=options, report="Small effusion. Nodule at the right apex."), seed)
    assert re.search(r"another option|the best answer", there.reason_steps[1].lower())
    assert verify(elsewhere).ok and verify(there).ok


def test_the_answer_settles_a_side_that_the_report_leaves_open() -> None:
    sample = anomaly("small left pleural effusion", report="Probable small effusion. Normal heart size.")
    told = " ".join(mine_rules(sample, 0).reason_steps[:-1])
    assert re.search(r"effusion (is \w+ )?on the left", told)


def test_labels_that_lost_letters_are_understood() -> None:
    sample = anomaly("arosclerosis of aorta", report="Atherosclerotic calcifications of the aorta.")
    steps = mine_rules(sample, 0).reason_steps
    assert "atherosclerotic calcification" in " ".join(steps[:-1]) and "arosclerosis" not in " ".join(
        steps[:-1]
    )
    assert steps[-1].endswith("arosclerosis of aorta.")  # the answer, to the letter


def test_a_plural_at_the_end_of_an_enumeration_decides_the_verb() -> None:
    sample = single(
        options=("normal", *OPTIONS[1:]),
        answer="A",
        answer_text="normal",
        report="No infiltrate or nipple shadow or interstitial opacities.",
    )
    told = mine_rules(sample, 0).reason_steps[1]
    assert (
        re.search(r"interstitial opacities are|No interstitial opacities", told)
        and "opacities is" not in told
    )


@pytest.mark.parametrize("concept", [name for name in sorted(load().concepts) if words_of(name).sign])
def test_a_sign_that_is_looked_for_names_no_finding(concept: str) -> None:
    sign = words_of(concept).sign
    assert silent(f"I search the whole film for {sign}."), sign
    assert not re.search(r"\ba [aeio]|\ban [^aeiou]", sign)


def test_labels_that_the_vocabulary_does_not_know_are_told_in_their_own_words() -> None:
    options = ("colonic interposition in mediastinum", *OPTIONS[1:])
    steps = mine_rules(single(options=options), 0).reason_steps
    assert "no colonic interposition in mediastinum" in steps[1]


@pytest.mark.parametrize(
    ("answer", "letter", "word"),
    [
        ("stable", "A", "as it was|alike|same extent"),
        ("worsening", "B", "more|progressed"),
        ("improving", "C", "less|improved"),
    ],
)
def test_temporal_reasoning_tells_both_images_and_the_change(answer: str, letter: str, word: str) -> None:
    sample = temporal(answer=letter, answer_text=answer, report="FINDINGS: Moderate left pleural effusion.")
    for seed in range(8):
        mined = mine_rules(sample, seed)
        steps = mined.reason_steps
        assert "reference image" in steps[1] and "a small pleural effusion on the left" in steps[1]
        assert "new image" in steps[2] and "a moderate-sized pleural effusion on the left" in steps[2]
        assert re.search(word, steps[3]) and steps[4].endswith(
            f"answer is {letter}, the pleural effusion is {answer}."
        )
        assert verify(mined).ok, (steps, verify(mined).reasons)


@pytest.mark.parametrize(
    ("prior", "report", "answer", "seen"),
    [
        (
            "No pleural effusion.",
            "Left pleural effusion.",
            "worsening",
            ("no pleural effusion", "a pleural effusion"),
        ),
        (
            "Left pleural effusion.",
            "Clear lungs.",
            "improving",
            ("a pleural effusion", "no pleural effusion"),
        ),
        (
            "Clear lungs.",
            "Stable left pleural effusion.",
            "stable",
            ("a pleural effusion", "a pleural effusion"),
        ),
    ],
)
def test_an_image_whose_report_is_silent_shows_what_the_answer_implies(
    prior: str, report: str, answer: str, seen: tuple[str, str]
) -> None:
    letter = {"stable": "A", "worsening": "B", "improving": "C"}[answer]
    extra = {"label": "pleural effusion", "prior_report": prior}
    sample = temporal(report=report, answer=letter, answer_text=answer, extra=extra)
    steps = mine_rules(sample, 0).reason_steps
    assert seen[0] in steps[1] and seen[1] in steps[2]
    assert verify(mine_rules(sample, 0)).ok


@pytest.mark.parametrize("concept", sorted(load().concepts))
def test_every_concept_has_words_that_say_just_that(concept: str) -> None:
    entry = load().concepts[concept]
    sides = (None,) if entry.sides == "none" else (None, "left", "right", "bilateral")
    places = (entry.place, "base", "lingula", "ribs") if entry.place == "lung" else (entry.place,)
    for side, place, severity in product(sides, places, (None, "mild", "severe")):
        told = Finding(concept, "present", "definite", side, place, severity, None, 0, 0, 0, 0)
        if concept not in ("abnormality", "acute cardiopulmonary process"):
            _check(present(told, random.Random(0), many=severity is None), told)
        denied = Finding(concept, "absent", "definite", side, place, None, None, 0, 0, 0, 0)
        _check(absent(denied, random.Random(0)), denied)
    assert words_of(concept).noun


def _check(sentence: str, finding: Finding) -> None:
    bare = Finding(finding.concept, finding.polarity, "definite", None, *[None] * 3, 0, 0, 0, 0)
    assert says(sentence, finding) or says(sentence, bare), sentence
    assert re.fullmatch(r"[A-Z][^{}]*[^ ]\.", sentence) and "  " not in sentence, sentence
    assert not re.search(r"\ba [aeio]|\ban [^aeiou]", sentence), sentence


@pytest.mark.skipif(not RADRBENCH.exists(), reason="needs ../shared/data/radrbench")
def test_real_samples_are_mined_and_verified() -> None:
    every = [mine_rules(sample, 0) for sample in read_samples(RADRBENCH)]
    assert sum(verify(sample).ok for sample in every) >= 0.99 * len(every)
