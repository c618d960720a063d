from pathlib import Path

import pytest

from chestx_jax.data.questions import build_questions
from chestx_jax.data.sources import SourceError
from chestx_jax.data.sources.change import progression
from chestx_jax.data.sources.serial import METADATA, PAIRS, own_sentences, read
from tests.data.layouts import collect, picture, table

COLUMNS = [
    "patientid",
    "order",
    "offset_days",
    "file",
    "view",
    "finding",
    "clinical_notes",
    "other_notes",
    "license",
]


def layout(root: Path, films: list[tuple[str, str]], pairs: list[tuple[str, str]]) -> Path:
    """`films`: (file, note), the patient being the file's first letter; `pairs`: (prior, current)."""
    rows = [{"patientid": file[0], "file": f"images/{file}", "clinical_notes": note} for file, note in films]
    table(root / METADATA, COLUMNS, rows)
    header = ["patientid", "prior_file", "current_file", "days_between", "same_view"]
    table(root / PAIRS, header, [["", f"images/{a}", f"images/{b}", "2.0", "1"] for a, b in pairs])
    for file, _ in films:
        picture(root / "images" / file)
    return root


def test_a_pair_becomes_a_temporal_question(tmp_path: Path) -> None:
    history = "Fever for days. Pneumonia was treated."
    root = layout(
        tmp_path,
        [
            ("a0.jpg", f"{history} Right consolidation. No pleural effusion."),
            (
                "a1.jpg",
                f"{history} Worsening of the right consolidation. CT shows a pneumothorax. Small effusion.",
            ),
            ("b0.jpg", "One text. Worsening consolidation."),
            ("b1.jpg", "One text. Worsening consolidation."),
        ],
        [("a0.jpg", "a1.jpg"), ("b0.jpg", "b1.jpg")],
    )
    studies, rejected = collect(read, root)
    assert rejected == {}
    first, second, _, same = studies
    assert first.prior is None and first.progression == {} and first.patient == "a"
    assert second.findings == "Worsening of the right consolidation. Small effusion."
    assert second.prior is not None and second.prior.id == "a0" and second.extra["days_since_prior"] == "2.0"
    assert second.progression == {"consolidation": "worsening", "pleural effusion": "worsening"}
    assert second.labels["consolidation"] == 1 and second.labels["pneumothorax"] is None
    questions = build_questions(second, ("temporal",))
    assert [(q.extra["label"], q.answer) for q in questions] == [
        ("consolidation", "B"),
        ("pleural effusion", "B"),
    ]
    assert questions[0].images == (str(root / "images/a0.jpg"), str(root / "images/a1.jpg"))
    # a note of the patient, not of the film: the pair is there, and nothing is claimed of it
    assert same.prior is not None and same.findings == "" and same.progression == {}
    assert build_questions(same) == []


def test_sentences_of_one_film() -> None:
    notes = ["Old. Clear lungs. PCR was positive.", "Old. New opacity;  CT: nodule.", "Old."]
    assert own_sentences(notes) == ["Clear lungs.", "New opacity;", ""]
    assert own_sentences(["Clear. Clear."]) == ["Clear. Clear."]


@pytest.mark.parametrize(
    ("report", "prior", "expected"),
    [
        ("Improving right consolidation.", "", {"consolidation": "improving"}),
        ("Stable moderate edema.", "", {"edema": "stable"}),
        ("New left pneumothorax.", "", {"pneumothorax": "worsening"}),
        ("Interval resolution of the pleural effusion.", "", {"pleural effusion": "improving"}),
        ("No new consolidation.", "", {}),
        ("Possible worsening of the edema.", "", {}),
        ("Persisting but improving consolidation.", "", {}),  # two directions
        ("Increasing left effusion. Decreasing right effusion.", "", {}),
        ("Left pneumothorax.", "No pneumothorax.", {"pneumothorax": "worsening"}),
        ("No pneumothorax.", "Left pneumothorax.", {"pneumothorax": "improving"}),
        ("Left pneumothorax.", "Left pneumothorax.", {}),  # neither report compares
        ("Possible pneumothorax.", "No pneumothorax.", {}),
        ("Left pneumothorax.", "", {}),
    ],
)
def test_progression(report: str, prior: str, expected: dict[str, str]) -> None:
    assert progression(report, prior) == expected


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    films = [("a0.jpg", "Clear."), ("a1.jpg", "Edema."), ("a2.jpg", ""), ("b0.jpg", ""), ("a0.jpg", "Clear.")]
    pairs = [("a0.jpg", "a1.jpg"), ("a1.jpg", "a2.jpg"), ("a1.jpg", "b0.jpg"), ("b0.jpg", "a1.jpg")]
    root = layout(tmp_path, films, pairs)
    (root / "images/a2.jpg").write_bytes(b"")
    studies, rejected = collect(read, root)
    assert [study.id for study in studies] == ["a0", "a1", "b0"]
    assert rejected == {
        f"{METADATA}: images/a0.jpg": "this file was listed before",
        f"{METADATA}: images/a2.jpg": "the file is empty",
        f"{PAIRS}: images/a1.jpg, images/a2.jpg": f"no usable film images/a2.jpg in {METADATA}",
        f"{PAIRS}: images/a1.jpg, images/b0.jpg": "films of two patients",
        f"{PAIRS}: images/b0.jpg, images/a1.jpg": "the current film has another prior",
    }
    with pytest.raises(SourceError, match=f"{METADATA}.*{PAIRS}"):
        read(root / "images", reject=pytest.fail)


def test_the_real_collection(shared_data: Path) -> None:
    studies, rejected = collect(read, shared_data / "serial")
    assert len(studies) == 137 and rejected == {}
    assert sum(study.prior is not None for study in studies) == 85
    questions = [question for study in studies for question in build_questions(study, ("temporal",))]
    assert all(len(question.images) == 2 for question in questions)
    answers = {question.id.removeprefix("serial-temporal-"): question.answer_text for question in questions}
    assert len(answers) == 19
    # read in the notes: "Radiological stability, with slight improvement of the alveolar consolidation", ..
    assert answers["p96_2-consolidation"] == "improving"
    assert answers["p206_1-lung_opacity"] == "worsening"  # "Progressive opacities extending from .."
    assert answers["p278_1-pneumonia"] == "improving"  # "a normal study, with resolution of the pneumonia"
    assert answers["p117_1-consolidation"] == "worsening"  # "Lungs clear" before
