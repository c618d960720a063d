"""Verification: what a step may claim, how it may end, and what it must not say."""

from dataclasses import replace

import pytest

from chestx_jax.data.mining import MiningError, verify
from chestx_jax.data.schema import Sample
from tests.data.mining_samples import anomaly, binary, single, temporal

GOOD = (
    "One of four findings has to be found.",
    "No pneumothorax is seen, so option A does not fit.",
    "There is a small pleural effusion on the left, which is option B.",
    "The heart is normal in size, which speaks against option C.",
    "No fracture is seen, so option D does not fit.",
    "Therefore the answer is B, pleural effusion.",
)


def told(sample: Sample, *steps: str) -> Sample:
    return replace(sample, reason_steps=steps)


def with_step(step: str, place: int = 4) -> Sample:
    return told(single(), *GOOD[:place], step, *GOOD[place:])


def test_every_step_gets_its_verdict() -> None:
    found = verify(told(single(), *GOOD))
    assert found.ok and found.conclusion and not found.leaks
    assert found.verdicts == ("empty", "supported", "supported", "supported", "unmentioned", "supported")


def test_what_the_report_leaves_out_may_be_denied_but_not_affirmed() -> None:
    assert verify(with_step("No nodule is seen.")).ok
    found = verify(with_step("There is a nodule in the left upper lobe."))
    assert found.reasons == ("step 5: no source affirms: present nodule",)
    assert found.verdicts[4] == "unmentioned"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("There is a pneumothorax on the right.", "step 5: contradicted by the report: present pneumothorax"),
        ("The heart is enlarged.", "step 5: contradicted by the report: present cardiomegaly"),
        (
            "A pleural effusion is seen on the right.",
            "step 5: contradicted by the report: present pleural effusion",
        ),
        ("There is no pleural effusion.", "step 5: contradicted by the report: absent pleural effusion"),
    ],
)
def test_what_the_report_denies_is_contradicted(step: str, reason: str) -> None:
    found = verify(with_step(step))
    assert reason in found.reasons and found.verdicts[4] == "contradicted"


def test_steps_that_contradict_each_other() -> None:
    sample = told(single(report="Left pleural effusion."), "There is a fracture.", "No fracture.", *GOOD[-1:])
    assert "steps contradict each other: fracture" in verify(sample).reasons


def test_the_answer_is_a_source_but_the_report_outweighs_it() -> None:
    steps = ("The heart is enlarged.", "The answer is A, Yes: it shows cardiomegaly.")
    silent = binary("cardiomegaly", True, report="No pneumothorax.")
    assert verify(told(silent, *steps)).ok
    denied = verify(told(binary("cardiomegaly", True), *steps))
    assert "step 1: contradicted by the report: present cardiomegaly" in denied.reasons
    wrong = verify(told(binary("cardiomegaly", False, report="No pneumothorax."), *steps))
    assert "step 1: contradicted by the answer: present cardiomegaly" in wrong.reasons


@pytest.mark.parametrize(
    "step",
    [
        "To assess option D, I look for a fracture of the ribs.",
        "For a fracture, I inspect the ribs for discontinuities.",
        "The ribs were examined for fractures.",
        "Option D describes a fracture.",
        "Considering the options pneumothorax, pleural effusion, cardiomegaly and fracture, I start with the ribs.",
        "A fracture would be seen as a step in the cortex.",
        "Next I turn to the fracture in question. There is no fracture.",
        "Signs of trauma such as fractures and dislocations come to mind.",
    ],
)
def test_announcements_are_no_claims(step: str) -> None:
    assert verify(with_step(step)).ok


def test_an_affirmation_is_not_taken_for_an_announcement() -> None:
    for step in (
        "I look at the ribs: there is a fracture of the left ribs.",
        "No pneumothorax is seen, and there is a fracture.",
        "There is a fracture, so option D does not fit.",
        "No nodule is seen, but a fracture is visible.",
    ):
        assert "step 5: no source affirms: present fracture" in verify(with_step(step)).reasons, step


def test_a_denial_of_one_kind_leaves_the_others() -> None:
    sample = single(
        options=("nodule", "lung opacity"),
        answer_text="lung opacity",
        report="Patchy opacity in the left base.",
    )
    steps = ("There is an opacity at the left lung base.", "No round opacity is seen.", "The answer is B.")
    assert verify(told(sample, *steps)).ok
    assert not verify(told(sample, steps[0], "The lungs are clear.", steps[2])).ok


@pytest.mark.parametrize(
    ("end", "ok"),
    [
        ("Therefore the answer is B, pleural effusion.", True),
        ("The final answer is Option B.", True),
        ("So the finding is a pleural effusion.", True),
        ("This fits (B).", True),
        ("Therefore the answer is A, pneumothorax.", False),
        ("Options A and B are both possible.", False),
        ("None of the options A, C and D fits, so it is a pleural effusion.", True),
        ("All options have been looked at.", False),
    ],
)
def test_the_last_step_names_the_answer_and_no_other(end: str, ok: bool) -> None:
    found = verify(told(single(), *GOOD[:-1], end))
    assert found.conclusion == ok
    assert ("conclusion does not name the answer" in found.reasons) == (not ok)


def test_conclusions_of_the_other_tasks() -> None:
    assert verify(
        told(binary("fracture", False), "No fracture.", "So this film does not show a fracture.")
    ).conclusion
    assert not verify(
        told(binary("fracture", False), "No fracture.", "This film shows a fracture.")
    ).conclusion
    two = anomaly("pleural effusion, support devices", report="Left pleural effusion. PICC line.")
    assert verify(told(two, "I find a pleural effusion and support devices.")).conclusion
    assert not verify(told(two, "I find a pleural effusion.")).conclusion
    none = anomaly("no finding", report="Normal chest.")
    assert verify(told(none, "Taken together, there is no finding.")).conclusion


@pytest.mark.parametrize(
    ("step", "leak"),
    [
        ("The report shows no nodule.", "the report"),
        ("No nodule is mentioned.", "is mentioned"),
        ("There is no mention of a nodule.", "no mention"),
        ("According to the plan, the lungs come next.", "the plan"),
        ("As mentioned, the heart is normal.", "as mentioned"),
        ("The radiologist noted a normal heart.", "radiologist noted"),
        ("The impression states no nodule.", "the impression states"),
        ("The heart is unchanged.", "unchanged"),
        ("The heart is normal compared to the prior.", "compared to the prior"),
        ("The XXXX is normal.", "xxxx"),
    ],
)
def test_phrases_that_leak_the_source(step: str, leak: str) -> None:
    found = verify(with_step(step))
    assert leak in found.leaks and f"leak: {leak}" in found.reasons


def test_plain_words_do_not_leak() -> None:
    step = "I note that the plane of the film and the planned position give the impression of a normal heart."
    assert not verify(with_step(step)).leaks


def test_temporal_sentences_are_held_against_their_own_image() -> None:
    steps = (
        "Two images have to be compared for pleural effusion.",
        "The reference image shows a small pleural effusion on the left.",
        "The new image shows a large pleural effusion on the left.",
        "From the reference image to the new one the pleural effusion has progressed.",
        "The answer is B, pleural effusion is worsening.",
    )
    assert verify(told(temporal(), *steps)).ok
    swapped = verify(told(temporal(report="No pleural effusion."), *steps))
    assert "step 3: contradicted by the report: present pleural effusion" in swapped.reasons
    improved = (*steps[:3], "The pleural effusion has improved.", steps[4])
    assert any(
        r.startswith("step 4: contradicted by the answer")
        for r in verify(told(temporal(), *improved)).reasons
    )
    wrong = (*steps[:4], "The answer is C, pleural effusion is improving.")
    assert not verify(told(temporal(), *wrong)).conclusion


def test_nothing_to_check() -> None:
    assert verify(single()).reasons == ("no reasoning steps",)
    assert "no report to check against" in verify(told(single(report=""), *GOOD)).reasons


def test_a_sample_without_its_label_is_named() -> None:
    with pytest.raises(MiningError, match=r"'s'.*'label'"):
        verify(told(binary("edema", True, extra={}), "Edema is seen."))
