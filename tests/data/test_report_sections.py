import pytest

from chestx_jax.data.sources.report_sections import findings_and_impression

HEAD = (
    " " * 33
    + "FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  ___F with cough  // ?PNA\n \n"
)


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        (
            f"{HEAD} COMPARISON:  Chest radiograph ___.\n \n FINDINGS: \n \n The lungs are\n clear.  No effusion.\n"
            " \n IMPRESSION: \n \n No acute process.\n",
            "The lungs are clear. No effusion.",
            "No acute process.",
        ),
        (f"{HEAD} CONCLUSION:  No pneumonia.\n", "", "No pneumonia."),
        (f"{HEAD} FINDINGS AND IMPRESSION:  No pneumonia.\n", "", "No pneumonia."),
        (f"{HEAD} IMPRESSON:  No pneumonia.\n", "", "No pneumonia."),
        (f"{HEAD} FINDNGS:  Clear.\n", "Clear.", ""),
        (f"{HEAD} PA AND LATERAL VIEWS OF THE CHEST:  Clear.\n", "Clear.", ""),
        (" CHEST, TWO VIEWS:  Clear.\n \n IMPRESSION:  Normal.", "Clear.", "Normal."),
        # an empty section does not hide a full one, and of two full ones the last counts
        (
            " FINDINGS:  Clear.\n \n FINDINGS: \n \n IMPRESSION:  Old.\n \n IMPRESSION:  New.\n",
            "Clear.",
            "New.",
        ),
        # addenda, wet reads and recommendations are neither
        (" WET READ:  Edema.\n \n FINDINGS:  Clear.\n \n ADDENDUM:  Seen.\n", "Clear.", ""),
        # neither section: what follows the first paragraph of the last section
        (
            " REASON FOR EXAM:  Tube placement.\n \n The tube ends in the stomach.\n \n No edema.",
            "The tube ends in the stomach. No edema.",
            "",
        ),
        ("PORTABLE FILM\n\nNo edema.", "No edema.", ""),
        (" INDICATION:  Cough.\n", "", ""),
        ("", "", ""),
        # other collections print a report in one line
        ("INDICATION: Cough. FINDINGS: Clear lungs. IMPRESSION: Normal.", "Clear lungs.", "Normal."),
    ],
)
def test_sections(text: str, findings: str, impression: str) -> None:
    assert findings_and_impression(text) == (findings, impression)


def test_a_word_in_capitals_within_a_sentence_is_no_heading() -> None:
    text = " FINDINGS:  ET tube: 3 cm above the carina. See CT: nodule.\n"
    assert findings_and_impression(text)[0] == "ET tube: 3 cm above the carina. See CT: nodule."
