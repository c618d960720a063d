"""What counts as the same claim, as a conflict, as a contradiction."""

import pytest

from chestx_jax.radiology import (
    Agreement,
    assertions,
    contradictions,
    extract_findings,
    match_findings,
    relation,
)


def compare(pred: str, gold: str) -> Agreement:
    return match_findings(extract_findings(pred), extract_findings(gold))


@pytest.mark.parametrize(
    ("pred", "gold", "rule"),
    [
        ("Right pleural effusion.", "There is a right effusion.", "same"),
        ("No effusion.", "Pleural effusion is not seen.", "same"),
        ("Pleural effusion.", "Right pleural effusion.", "side"),
        ("Bilateral effusions.", "Right pleural effusion.", "side"),
        ("Lung opacity.", "Right lower lobe consolidation.", "kin"),
        ("Consolidation.", "Lung opacity.", "kin"),
        ("No consolidation.", "The lungs are clear.", "kin"),
        ("Left effusion.", "Right effusion.", None),
        ("Effusion.", "No effusion.", None),
        ("Effusion.", "Pneumothorax.", None),
    ],
)
def test_rules(pred: str, gold: str, rule: str | None) -> None:
    assert [pair.rule for pair in compare(pred, gold).pairs] == ([rule] if rule else [])


def test_pairs_are_one_to_one_and_best_first() -> None:
    agreement = compare("Lung opacity. Consolidation.", "Consolidation.")
    assert [(pair.pred.concept, pair.rule) for pair in agreement.pairs] == [("consolidation", "same")]
    assert [finding.concept for finding in agreement.pred_only] == ["lung opacity"]
    assert [finding.concept for finding in agreement.entailed] == ["lung opacity"]
    assert agreement.precision == 0.5 and agreement.recall == 1.0


def test_repeating_a_claim_earns_nothing() -> None:
    assert compare("Effusion. Effusion. Effusion.", "Effusion.").f1 == 1.0
    assert len(assertions(extract_findings("Right effusion. The effusion is small. Left effusion."))) == 1
    assert assertions(extract_findings("Right effusion. Left effusion."))[0].laterality == "bilateral"
    assert assertions(extract_findings("We look for effusion. History of pneumonia.")) == ()


def test_conflicts_and_entailed() -> None:
    agreement = compare(
        "Left effusion. No edema. Pneumothorax.", "Right effusion. The lungs are clear. No pneumothorax."
    )
    assert {(one.concept, two.polarity) for one, two in agreement.conflicts} == {
        ("pleural effusion", "present"),
        ("pneumothorax", "absent"),
    }
    assert [pair.rule for pair in agreement.pairs] == ["kin"]
    assert not compare("Consolidation.", "No large effusion.").conflicts


def test_nothing_said_scores_nothing() -> None:
    assert compare("", "Effusion.").f1 == 0.0 and compare("", "").f1 == 0.0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Pleural effusion. No pleural effusion.", 1),
        ("Left effusion. There is no effusion.", 1),
        ("Bilateral effusions. No left effusion.", 1),
        ("Effusion. No effusion. Effusion. No effusion.", 1),
        ("Cardiomegaly. The heart size is normal.", 1),
        ("Left effusion. No right effusion.", 0),
        ("Small effusion. No large effusion.", 0),
        ("Stable opacity in the left base. No new opacity.", 0),
        ("Opacity in the left base. The lungs are otherwise clear.", 0),
        ("Opacity in the base. The apices are clear.", 0),
        ("Possible pneumonia. No pneumonia.", 0),
        ("We look for effusion. No effusion.", 0),
        ("Bibasilar atelectasis. No pneumothorax.", 0),
    ],
)
def test_contradictions(text: str, count: int) -> None:
    assert len(contradictions(extract_findings(text))) == count


@pytest.mark.parametrize(
    ("pred", "gold", "expected"),
    [
        ("left effusion", "left effusion", "same"),
        ("effusion", "left effusion", "side"),
        ("consolidation", "lung opacity", "kin"),
        ("right effusion", "left effusion", "conflict"),
        ("no effusion", "left effusion", "conflict"),
        ("effusion", "scoliosis", None),
    ],
)
def test_relation_is_agreement_of_two(pred: str, gold: str, expected: str | None) -> None:
    (one,), (two,) = extract_findings(pred), extract_findings(gold)
    agreement = match_findings((one,), (two,))
    rules = [match.rule for match in agreement.pairs]
    rules += ["entailed"] * len(agreement.entailed) + ["conflict"] * len(agreement.conflicts)
    assert relation(one, two) == expected == (rules[0] if rules else None)
