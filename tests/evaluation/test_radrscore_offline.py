"""The offline RadRScore on small texts, its properties, and its correlation on the real judgments."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.evaluation.radrscore import Judgment, Reference, judgment, offline_radrscore, read_judged
from chestx_jax.evaluation.radrscore.correlation import spearman, spearman_interval
from chestx_jax.evaluation.radrscore.judged import reference_of
from chestx_jax.evaluation.radrscore.probes import FILLER, NORMALS
from chestx_jax.evaluation.records import RecordError
from chestx_jax.rewards.reference import MissingReference
from tests.evaluation.samples import binary

OPTIONS = ("left pleural effusion", "pneumothorax", "rib fracture", "cardiomegaly")
GOLD = (
    "There is blunting of the left costophrenic angle with a small left pleural effusion.",
    "There is no pneumothorax.",
    "No rib fracture is seen.",
    "The heart size is normal.",
    "Therefore, the answer is option A.",
)
REPORT = "FINDINGS: Small left pleural effusion. No pneumothorax. Heart size is normal."
REFERENCE = Reference.of(GOLD, REPORT, OPTIONS, "A")
SENTENCES = (
    *GOLD,
    *NORMALS,
    *FILLER,
    "There is a right pleural effusion.",
    "There is a large pneumothorax.",
    "We look for a pneumothorax.",
    "There is possibly a rib fracture.",
    "There is scoliosis.",
)
texts = st.lists(st.sampled_from(SENTENCES), max_size=8)
answers = st.sampled_from(["A", "B", "cardiomegaly", None])


def test_a_copy_of_the_gold_reasoning_scores_1() -> None:
    scored = offline_radrscore(GOLD, REFERENCE, "A")
    assert (scored.factuality, scored.completeness, scored.effectiveness, scored.score) == (1, 1, 1, 1)


def test_a_completion_is_parsed() -> None:
    text = f"<think> {' '.join(GOLD)} </think><answer> A </answer>"
    assert offline_radrscore(text, REFERENCE).score == 1
    assert offline_radrscore(text.replace("> A <", "> B <"), REFERENCE).score < 1


@pytest.mark.parametrize(
    "prediction", ["", (), "<think> </think><answer> A </answer>", "<answer> A </answer>"]
)
def test_no_reasoning_scores_0(prediction: str | tuple[str, ...]) -> None:
    assert offline_radrscore(prediction, REFERENCE, "A").score == 0


def test_the_three_numbers_by_hand() -> None:
    steps = ("There is a left pleural effusion.", "There is a pneumothorax.", "The lungs were reviewed.")
    scored = offline_radrscore(steps, REFERENCE, "A")
    verdicts = {(c.finding.concept): c.verdict.verdict for c in scored.evidence.claims}
    assert verdicts == {"pleural effusion": "supported", "pneumothorax": "contradicted"}
    assert [s.verdict for s in scored.evidence.sentences] == ["supported", "contradicted", "empty"]
    # affirmed: one of two claims and no answer, as it affirms another option; denied: none of the gold's
    assert scored.evidence.conclusion is not None and scored.evidence.conclusion.undercut
    denied = [one for one in scored.evidence.gold if one.finding.polarity == "absent"]
    affirmed = [one for one in scored.evidence.gold if one.finding.polarity == "present"]
    assert len(denied) == 3
    assert scored.factuality == pytest.approx((1 / 3 + 0) / 2)
    recalled = sum(one.credit for one in affirmed)
    assert scored.completeness == pytest.approx((recalled / (len(affirmed) + 1) + 0) / 2)
    assert scored.effectiveness == pytest.approx(1 / 4)


def test_spans_point_at_the_words() -> None:
    text = f"<think> {GOLD[0]} There is a large right pneumothorax. </think><answer> A </answer>"
    evidence = offline_radrscore(text, REFERENCE).evidence
    assert next(evidence.text[s.start : s.end] for s in evidence.sentences) == GOLD[0]
    claim = next(c for c in evidence.claims if c.finding.concept == "pneumothorax")
    assert text[claim.finding.start : claim.finding.end] == "pneumothorax"
    assert claim.verdict.source == "gold" and claim.verdict.witness is not None
    gold_text = "\n".join(GOLD)
    assert gold_text[claim.verdict.witness.start : claim.verdict.witness.end] == "pneumothorax"
    recalled = next(one for one in evidence.gold if one.finding.concept == "pleural effusion")
    assert recalled.recalled_by is not None and recalled.credit == 1
    assert text[recalled.recalled_by.start : recalled.recalled_by.end] == "pleural effusion"


def test_a_witness_in_the_report() -> None:
    reference = Reference.of(GOLD, REPORT + " There is a nasogastric tube.", OPTIONS, "A")
    (claim,) = offline_radrscore(("A nasogastric tube is seen.",), reference).evidence.claims
    assert (claim.verdict.verdict, claim.verdict.source) == ("supported", "report")
    assert claim.verdict.witness is not None
    report = REPORT + " There is a nasogastric tube."
    assert report[claim.verdict.witness.start : claim.verdict.witness.end] == "nasogastric tube"


def verdict(sentence: str, reference: Reference = REFERENCE) -> str:
    return offline_radrscore((sentence,), reference).evidence.sentences[0].verdict


def test_what_a_sentence_can_be() -> None:
    assert verdict("There is an effusion on the left.") == "supported"
    assert verdict("There is a right pleural effusion.") == "contradicted"
    assert verdict("There is scoliosis.") == "unmentioned"
    assert verdict("We look for a pneumothorax.") == "planned"
    assert verdict("The image is reviewed with care.") == "empty"
    assert verdict("There is no pleural thickening.") == "unmentioned"
    report = REPORT + " No scoliosis."
    assert verdict("There is no scoliosis.", Reference.of(GOLD, report, OPTIONS, "A")) == "off_topic"
    twice = offline_radrscore(("There is no pneumothorax today.", "No pneumothorax."), REFERENCE)
    assert [s.verdict for s in twice.evidence.sentences] == ["supported", "repeated"]


def test_an_unmentioned_normal_earns_only_if_the_question_asks() -> None:
    asked = Reference.of(GOLD, REPORT, (*OPTIONS[:3], "scoliosis"), "A")
    for reference, credit in ((asked, 1.0), (REFERENCE, 0.0)):
        (claim,) = offline_radrscore(("There is no scoliosis.",), reference).evidence.claims
        assert claim.verdict.credit == credit


def test_saying_both_earns_neither() -> None:
    scored = offline_radrscore(("There is a left pleural effusion.", "No pleural effusion."), REFERENCE, "A")
    assert {c.verdict.source for c in scored.evidence.claims} == {"prediction"}
    assert scored.factuality == 0
    assert scored.evidence.conclusion is not None and scored.evidence.conclusion.credit == 0


def test_the_reasoning_may_not_deny_its_answer() -> None:
    kept = offline_radrscore(("There is no pneumothorax.",), REFERENCE, "A").evidence.conclusion
    denied = offline_radrscore(("There is no pleural effusion.",), REFERENCE, "A").evidence.conclusion
    assert kept is not None and denied is not None
    assert (kept.credit, kept.undercut, denied.credit, denied.undercut) == (1, False, 0, True)


def test_one_true_sentence_is_not_a_full_reasoning() -> None:
    assert offline_radrscore(GOLD[:1], REFERENCE, "A").score < 0.75
    assert offline_radrscore(GOLD[1:2], REFERENCE, "A").score < 0.6


def test_an_open_question() -> None:
    reference = Reference.of(GOLD, REPORT, None, "pleural effusion, scoliosis")
    assert offline_radrscore(GOLD, reference, "scoliosis, pleural effusion").score == 1
    partly = offline_radrscore(GOLD, reference, "pleural effusion").evidence.conclusion
    assert partly is not None and 0 < partly.credit < 1


def test_without_an_answer_the_reasoning_alone_counts() -> None:
    assert offline_radrscore(GOLD, Reference.of(GOLD, REPORT, OPTIONS)).score == 1


@given(texts, answers, st.randoms())
def test_the_order_of_sentences_does_not_matter_to_factuality(steps, answer, random) -> None:
    shuffled = random.sample(steps, len(steps))
    one, two = (offline_radrscore(text, REFERENCE, answer) for text in (steps, shuffled))
    assert one.factuality == pytest.approx(two.factuality)
    assert one.completeness == pytest.approx(two.completeness)


@given(texts.filter(bool), answers, st.data())
def test_repeating_never_raises_the_score(steps, answer, data) -> None:
    again = [*steps, data.draw(st.sampled_from(steps))]
    assert offline_radrscore(again, REFERENCE, answer).score <= (
        offline_radrscore(steps, REFERENCE, answer).score + 1e-12
    )


@given(texts.filter(bool), answers, st.lists(st.sampled_from(FILLER), max_size=5))
def test_filler_never_raises_the_score(steps, answer, filler) -> None:
    longer = offline_radrscore([*steps, *filler], REFERENCE, answer).score
    assert longer <= offline_radrscore(steps, REFERENCE, answer).score + 1e-12


@given(texts, answers)
def test_scores_stay_between_0_and_the_gold_copy(steps, answer) -> None:
    scored = offline_radrscore(steps, REFERENCE, answer)
    for value in (scored.factuality, scored.completeness, scored.effectiveness, scored.score):
        assert 0 <= value <= 1


def test_a_sample_without_report_is_an_error() -> None:
    with pytest.raises(MissingReference, match=r"report"):
        Reference.of_sample(binary(1, report=""))


@pytest.mark.parametrize("denial", ["A pleural effusion is unlikely.", "There is no large pleural effusion."])
def test_who_affirms_and_half_denies_gains_nothing_by_the_denial(denial: str) -> None:
    alone = offline_radrscore(("There is a left pleural effusion.",), REFERENCE, "A")
    hedged = offline_radrscore(("There is a left pleural effusion.", denial), REFERENCE, "A")
    assert alone.score > 0
    assert (hedged.factuality, hedged.completeness) == (alone.factuality, alone.completeness)
    assert hedged.effectiveness <= alone.effectiveness


def test_steps_that_deny_the_answer_are_not_effective() -> None:
    steps = ("There is no pneumothorax.", "There is no pleural effusion.")
    assert offline_radrscore(steps[:1], REFERENCE, "A").effectiveness > 0
    assert offline_radrscore(steps, REFERENCE, "A").effectiveness == 0


def test_a_record_without_steps_is_an_error() -> None:
    with pytest.raises(RecordError, match=r"record '7'.*reason_steps"):
        reference_of({"id": "7", "question": "?", "answer": "A"})


def test_spearman() -> None:
    ranks = np.arange(5.0)
    assert spearman(ranks, ranks**3) == pytest.approx(1)
    assert spearman(ranks, -ranks) == pytest.approx(-1)
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 2, 4])) == pytest.approx(5 / 6, abs=0.01)
    assert np.isnan(spearman(ranks, np.ones(5)))
    low, high = spearman_interval(ranks, ranks**2, "abcde")
    assert low <= high <= 1


def test_correlation_with_gpt_4o(shared_data: Path) -> None:
    records = read_judged(shared_data / "radrbench" / "openi_judged.jsonl.gz")
    pairs = [(record, one) for record in records if isinstance(one := judgment(record), Judgment)]
    ours = np.array([offline_radrscore(record["pred"], reference_of(record)).score for record, _ in pairs])
    assert spearman(ours, np.array([one.score for _, one in pairs])) >= 0.45
