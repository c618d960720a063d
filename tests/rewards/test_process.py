"""The process reward: what it pays for, by hand and by property."""

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.evaluation.radrscore.probes import FILLER, NORMALS
from chestx_jax.rewards import Stepwise, reward
from chestx_jax.rewards.evidence import SENTENCES as VERDICTS
from chestx_jax.rewards.process import STEP_VALUES, process_score
from chestx_jax.rewards.reading import read_steps
from chestx_jax.rewards.reference import Reference

OPTIONS = ("left pleural effusion", "pneumothorax")
EFFUSION, NO_AIR, END = GOLD = (
    "There is a left pleural effusion.",
    "There is no pneumothorax.",
    "Therefore the answer is option A.",
)
REPORT = "Left pleural effusion. No pneumothorax. No rib fracture."
REFERENCE = Reference.of(GOLD, REPORT, OPTIONS, "A")
CARE = "The image is reviewed with care."
CONTRADICTIONS = ("There is a right pleural effusion.", "There is a pneumothorax.", "No pleural effusion.")
SENTENCES = (
    *GOLD,
    *NORMALS,
    *FILLER,
    *CONTRADICTIONS,
    "There is an effusion.",
    "We look for a pneumothorax.",
    "There is scoliosis.",
    "A possible rib fracture.",
)
texts = st.lists(st.sampled_from(SENTENCES), max_size=8)


def score(*steps: str, reference: Reference = REFERENCE, answer: str = "A") -> Stepwise:
    return process_score(read_steps(steps, answer), reference)


def rewarded(*texts: str, **changes: Any) -> list[Any]:
    columns = {"reason_steps": GOLD, "report": REPORT, "options": OPTIONS, "answer": "A"} | changes
    aligned = {name: [value] * len(texts) for name, value in columns.items()}
    return list(reward("process")(prompts=texts, completions=texts, id=["x"] * len(texts), **aligned))


def half_mean(one: float, two: float) -> float:
    return ((one**0.5 + two**0.5) / 2) ** 2


def f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall)


def test_the_gold_reasoning_earns_1_and_silence_0() -> None:
    assert score(*GOLD) == 1
    assert score() == 0
    assert score(CARE) == 0


def test_one_kind_of_claim_earns_a_quarter() -> None:
    assert score(EFFUSION) == pytest.approx(0.25)
    assert score(NO_AIR) == pytest.approx(0.25)


def test_a_step_without_a_claim_counts_half() -> None:
    expected = f1(half_mean(1 / 1.25, 1 / 1.25), 1)
    for idle in (CARE, EFFUSION, "We look for a pneumothorax."):
        assert score(EFFUSION, NO_AIR, idle) == pytest.approx(expected)


def test_a_missing_side_earns_three_quarters() -> None:
    part = half_mean(0.75, 1)
    assert score("There is a pleural effusion.", NO_AIR) == pytest.approx(f1(part, part))


def test_a_contradicted_claim_costs() -> None:
    assert score("There is a right pleural effusion.", NO_AIR) == pytest.approx(0.25)
    air = score(EFFUSION, NO_AIR, "There is a pneumothorax.")
    assert air == pytest.approx(f1(half_mean(0.75 / 2, 0), half_mean(1, 0)))  # it contradicts itself as well


def test_an_unmentioned_finding_counts_and_earns_nothing() -> None:
    assert score(*GOLD, "There is scoliosis.") == pytest.approx(f1(half_mean(1 / 2, 1), 1))


def test_normals_earn_nothing_unless_asked_for() -> None:
    unasked = f1(half_mean(1, 1 / 2), 1)
    assert score(*GOLD, "There is no scoliosis.") == pytest.approx(unasked)  # nobody speaks of it
    assert score(*GOLD, "There is no rib fracture.") == pytest.approx(unasked)  # the report does
    asked = Reference.of(GOLD, REPORT, (*OPTIONS, "scoliosis"), "A")
    assert score(*GOLD, "There is no scoliosis.", reference=asked) == 1


@pytest.mark.parametrize(
    ("affirmed", "denied"),
    [
        ("There may be a pneumothorax.", "No pneumothorax is seen."),
        ("There is a pneumothorax.", "A pneumothorax is unlikely."),
        ("There is a pneumothorax.", "There is no large pneumothorax."),
    ],
)
def test_saying_both_earns_nothing(affirmed: str, denied: str) -> None:
    both = score(EFFUSION, affirmed, denied)
    assert both <= score(EFFUSION, affirmed) < score(EFFUSION)
    assert both.steps[2].value < 0
    asserted = Reference.of((EFFUSION, affirmed, denied), REPORT, OPTIONS, "A")
    assert score(EFFUSION, affirmed, denied, reference=asserted) == 1  # the gold reasoning says both


def test_brevity_is_no_way_to_precision() -> None:
    many = Reference.of((EFFUSION, "Cardiomegaly.", "Scoliosis.", "A rib fracture."), REPORT, OPTIONS, "A")
    assert score(EFFUSION, reference=many) == pytest.approx(f1(1 / 2, 1 / 4))


def test_a_normal_chest_is_all_normals() -> None:
    normal = Reference.of(
        ("No pneumothorax.", "No effusion."), "Normal. No edema.", ("edema", "no finding"), "B"
    )
    steps = ("No effusion.", "No pneumothorax.", "No edema.")
    assert score(*steps, reference=normal, answer="B") == 1
    assert score(*steps, reference=normal, answer="A") < 1  # its answer is what it denies
    assert score("There is edema.", reference=normal) == 0


def test_the_reasoning_may_not_deny_its_answer() -> None:
    text = "<think> There is a pneumothorax. There is no pleural effusion. </think><answer> {} </answer>"
    gold = Reference.of(("There is a pneumothorax.", "No pleural effusion."), "Pneumothorax.", OPTIONS, "B")
    kept, denied = (process_score(read_steps(text.split(". "), one), gold) for one in "BA")
    assert denied < kept


def test_steps_have_values_and_spans() -> None:
    steps = (
        (EFFUSION, 1.0, True),
        (CARE, -0.5, False),
        (EFFUSION, -0.5, False),
        ("We look for edema.", -0.5, False),
        ("No rib fracture.", 0.0, False),
        ("There is scoliosis.", -0.5, True),
        ("There is cardiomegaly.", -0.5, True),
        ("There is a right pleural effusion.", -1.0, True),
    )
    text = f"<think> {' '.join(step for step, *_ in steps)} </think><answer> A </answer>"
    (found,) = rewarded(text)
    assert [(text[s.start : s.end], s.value, s.link) for s in found.steps] == list(steps)
    assert set(STEP_VALUES) == set(VERDICTS)


def test_a_reward_with_steps_is_a_number_that_can_be_sent() -> None:
    found = score(*GOLD)
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.steps) == (found, found.steps) and len(found.steps) == 3
    assert isinstance(found, float)


def test_none_where_nothing_can_be_checked() -> None:
    text = f"<think> {' '.join(GOLD)} </think><answer> A </answer>"
    assert rewarded(text, text) == [1, 1]
    assert rewarded(text, reason_steps=()) == [None]
    assert rewarded(text, report="") == [None]
    assert rewarded(text, reason_steps=("The answer is option A.",)) == [None]
    with pytest.raises(ValueError, match="claims nothing"):
        score(EFFUSION, reference=Reference.of(("Option A.",), REPORT, OPTIONS, "A"))


def test_a_missing_column_is_an_error() -> None:
    with pytest.raises(TypeError, match="reason_steps"):
        reward("process")(prompts=["?"], completions=["?"], report=[REPORT])


@given(texts, st.lists(st.sampled_from((CARE, *FILLER)), min_size=1, max_size=6), st.randoms())
def test_padding_never_raises_wherever_it_stands(steps, padding, random) -> None:
    padded = list(steps)
    for one in padding:
        padded.insert(random.randint(0, len(padded)), one)
    assert score(*padded) <= score(*steps)
    if score(*steps):
        assert score(*padded) < score(*steps)
    assert score(*steps, *padding) == score(*padding, *steps)


@given(texts.filter(bool), st.data())
def test_saying_it_again_never_raises(steps, data) -> None:
    assert score(*steps, data.draw(st.sampled_from(steps))) <= score(*steps)


@given(texts, st.sampled_from(CONTRADICTIONS))
def test_a_contradiction_never_raises(steps, false) -> None:
    assert score(*steps, false) <= score(*steps)


@given(st.lists(st.sampled_from((*GOLD, *FILLER)), max_size=6), st.lists(st.sampled_from(CONTRADICTIONS)))
def test_a_contradiction_lowers(steps, false) -> None:
    if false:
        assert score(*GOLD, *steps, *false) < score(*GOLD, *steps)


@given(texts)
def test_rewards_lie_between_0_and_1_and_steps_between_minus_1_and_1(steps) -> None:
    found = score(*steps)
    assert 0 <= found <= 1
    assert len(found.steps) == len(steps)
    assert all(-1 <= step.value <= 1 for step in found.steps)
