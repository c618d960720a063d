from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.data.chat import split_steps
from chestx_jax.data.questions import QuestionError, build_questions
from chestx_jax.data.schema import LABELS, TASKS, Sample, Study, check_sample

IMAGES = (Path("frontal.png"), Path("lateral.png"))
ABSENT = dict.fromkeys(LABELS, 0)


def study(labels: dict, **fields: object) -> Study:
    return Study("7", "a", IMAGES, "Clear lungs.", "Normal.", labels=labels, **fields)


def build(labels: dict, task: str, seed: int = 0, **fields: object) -> list[Sample]:
    return build_questions(study(labels, **fields), [task], seed)


def test_binary_wording_and_answers() -> None:
    yes, no = build(
        {"edema": 1, "pneumonia": -1, "fracture": None, "pneumothorax": 0, "no finding": 0}, "binary"
    )
    assert yes.question == "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
    assert (yes.answer, yes.answer_text, yes.options, yes.id) == (
        "A",
        "Yes",
        ("Yes", "No"),
        "a-binary-7-edema",
    )
    assert no.question == "Does this chest X-ray show pneumothorax? Options:\nA) Yes\nB) No"
    assert (no.answer, no.answer_text) == ("B", "No")
    assert yes.images == ("frontal.png", "lateral.png")
    assert yes.report == "FINDINGS: Clear lungs. IMPRESSION: Normal."


@pytest.mark.parametrize("seed", range(20))
def test_single_has_one_finding_and_three_absent_ones(seed: int) -> None:
    (sample,) = build(ABSENT | {"edema": 1, "fracture": -1, "pneumonia": None}, "single", seed)
    stem, *options = sample.question.split("\n")
    assert stem == "Which finding is in this chest X-ray? Options:"
    assert options == [
        f"{letter}) {option}" for letter, option in zip("ABCD", sample.options or (), strict=True)
    ]
    assert sample.answer_text == "edema"
    assert not {"fracture", "pneumonia"} & set(sample.options or ())


def test_single_of_a_normal_study() -> None:
    for labels in (ABSENT, ABSENT | {"no finding": 1}):
        (sample,) = build(labels, "single")
        assert sample.answer_text == "no finding"


@pytest.mark.parametrize(
    "labels",
    [
        ABSENT | {"edema": 1, "fracture": 1},
        ABSENT | {"edema": -1},  # perhaps normal, perhaps not
        ABSENT | {"no finding": 0},  # something outside the labels
        {"edema": 1, "fracture": 0},  # too few distractors
        {},
    ],
)
def test_no_single_question(labels: dict) -> None:
    assert build(labels, "single") == []


@pytest.mark.parametrize("seed", range(20))
def test_multiple_offers_sets_of_one_size(seed: int) -> None:
    truth = {"edema", "pneumonia", "cardiomegaly"}
    (sample,) = build(ABSENT | dict.fromkeys(truth, 1) | {"fracture": -1}, "multiple", seed)
    assert sample.question.startswith("Which findings are in this chest X-ray? Options:\nA) ")
    sets = [frozenset(option.split(", ")) for option in sample.options or ()]
    assert len(sets) == 4 == len(set(sets)) and {len(s) for s in sets} == {3}
    assert sets["ABCD".index(sample.answer)] == truth
    assert all("fracture" not in s for s in sets)
    orders = [[LABELS.index(label) for label in option.split(", ")] for option in sample.options or ()]
    assert all(order == sorted(order) for order in orders)  # the order of a set gives nothing away


def test_multiple_needs_two_findings_and_three_other_sets() -> None:
    assert build(ABSENT | {"edema": 1}, "multiple") == []
    assert build({"edema": 1, "fracture": 1, "pneumonia": 0}, "multiple") == []  # only 3 sets of two exist
    assert len(build({"edema": 1, "fracture": 1, "pneumonia": 0, "pneumothorax": 0}, "multiple")) == 1


def test_anomaly_is_open() -> None:
    (sample,) = build(ABSENT | {"pneumonia": 1, "edema": 1}, "anomaly")
    assert sample.question == "Which findings are in this chest X-ray?"
    assert sample.options is None and sample.answer == sample.answer_text == "edema, pneumonia"
    (normal,) = build(ABSENT, "anomaly")
    assert normal.answer == "no finding"
    assert build(ABSENT | {"no finding": 0}, "anomaly") == []


def test_temporal_wording_and_images() -> None:
    prior = Study("6", "a", (Path("old.png"), Path("old2.png")), impression="Edema.")
    progression = {"edema": "worsening", "pleural effusion": "stable"}
    edema, effusion = build({}, "temporal", prior=prior, progression=progression)
    assert edema.question == (
        "You are given two images: one reference image and one new image. "
        "Please identify the progression of edema. Options:\nA) stable\nB) worsening\nC) improving"
    )
    assert (edema.answer, edema.answer_text, effusion.answer) == ("B", "worsening", "A")
    assert edema.images == ("old.png", "frontal.png")
    assert edema.extra["prior_report"] == "IMPRESSION: Edema."


def test_temporal_reasoning_takes_the_comparison_of_its_label() -> None:
    prior = Study("6", "a", (Path("old.png"),))
    comparisons = {"edema": "The haze has grown.", "pleural effusion": "The fluid is the same."}
    known = {"reason_steps": ("There is haze.",), "extra": {"comparison_steps": comparisons}}
    (sample,) = build({}, "temporal", prior=prior, progression={"edema": "worsening"}, **known)
    assert sample.reason_steps[:-1] == ("There is haze.", "The haze has grown.")
    assert "B, edema is worsening" in sample.reason_steps[-1]


def test_reasoning_ends_with_a_sentence_that_names_the_answer() -> None:
    steps = ("The heart is large.", "The lungs are clear.")
    labels = ABSENT | {"cardiomegaly": 1}
    endings = set()
    for seed in range(20):
        (sample,) = build(labels, "single", seed, reason_steps=steps)
        assert sample.reason_steps[:-1] == steps
        assert f"{sample.answer}, cardiomegaly" in sample.reason_steps[-1]
        assert len(split_steps(sample.reason_steps[-1])) == 1
        endings.add(sample.reason_steps[-1].split(" answer")[0])
    assert len(endings) > 1
    assert build(labels, "single")[0].reason_steps == ()
    (yes, *_rest) = build({"edema": 0}, "binary", reason_steps=steps)
    assert "B, edema is not present" in yes.reason_steps[-1]


@given(
    st.dictionaries(st.sampled_from(LABELS), st.sampled_from([1, 0, -1, None])),
    st.sampled_from([None, 0]),
    st.integers(0, 5),
)
def test_every_question_obeys_the_schema_and_repeats(labels: dict, no_finding: int | None, seed: int) -> None:
    given_study = study(labels | {"no finding": no_finding})
    built = build_questions(given_study, TASKS, seed)
    assert [check_sample(sample) for sample in built] == [[]] * len(built)
    assert len({sample.id for sample in built}) == len(built)
    assert built == build_questions(given_study, TASKS, seed)
    single = build_questions(given_study, ["single"], seed)
    assert single == [sample for sample in built if sample.task == "single"]  # tasks do not share draws


def test_the_right_letter_is_drawn_evenly() -> None:
    studies = [Study(str(i), "a", IMAGES, labels=ABSENT | {"edema": 1}) for i in range(400)]
    letters = Counter(build_questions(s, ["single"])[0].answer for s in studies)
    assert set(letters) == set("ABCD") and min(letters.values()) > 60


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": {"edema": 2}}, "study a/7: field 'labels': 'edema' is 2"),
        ({"labels": {"Edema": 1}}, "lower-case"),
        ({"labels": {"edema": 1, "no finding": 1}}, "'no finding' is 1 and so is 'edema'"),
        ({"labels": {}, "progression": {"edema": "worse"}}, "field 'progression'"),
        ({"labels": {}, "progression": {"edema": "stable"}}, "field 'prior': missing"),
    ],
)
def test_bad_studies(fields: dict, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        build_questions(study(**fields))


def test_unknown_task() -> None:
    with pytest.raises(QuestionError, match="task 'triple'"):
        build_questions(study(ABSENT), ["triple"])


def test_elected_questions_offer_the_options_they_were_given() -> None:
    labels = ABSENT | {"edema": 1}
    offered = ("fracture", "edema", "pneumonia", "no finding")
    built = build_questions(study(labels), TASKS, 0, {"a-single-7": offered, "a-anomaly-7": None})
    assert [sample.task for sample in built] == ["single", "anomaly"]
    assert (built[0].options, built[0].answer, built[0].answer_text) == (offered, "B", "edema")
    assert built[0].question.endswith("A) fracture\nB) edema\nC) pneumonia\nD) no finding")
    assert build_questions(study(labels), TASKS, 0, {}) == []


def test_a_question_is_the_same_whatever_else_is_elected() -> None:
    labels, steps = ABSENT | {"edema": 1}, ("The lungs are hazy.",)
    built = build_questions(study(labels, reason_steps=steps))
    last = built[-1]
    assert build_questions(study(labels, reason_steps=steps), TASKS, 0, {last.id: None}) == [last]
