"""Small samples for the tests of mining."""

from typing import Any

from chestx_jax.data.schema import Sample, question_text

OPTIONS = ("pneumothorax", "pleural effusion", "cardiomegaly", "fracture")
REPORT = "FINDINGS: Small left pleural effusion. No pneumothorax. The heart is normal in size. IMPRESSION: Effusion."


def _sample(**fields: Any) -> Sample:
    plain = {"id": "s", "study": "1", "patient": None, "source": "test", "images": ("a.png",)}
    return Sample(**(plain | fields))


def single(**changes: Any) -> Sample:
    """Which finding: B, a pleural effusion."""
    stem = "Which finding is in this chest X-ray?"
    options = changes.pop("options", OPTIONS)
    fields = {
        "task": "single",
        "question": question_text(stem, options),
        "options": options,
        "answer": "B",
        "answer_text": options[1],
        "report": REPORT,
    }
    return _sample(**(fields | changes))


def binary(label: str, yes: bool, **changes: Any) -> Sample:
    """Does it show the label?"""
    fields = {
        "task": "binary",
        "question": question_text(f"Does this chest X-ray show {label}?", ("Yes", "No")),
        "options": ("Yes", "No"),
        "answer": "A" if yes else "B",
        "answer_text": "Yes" if yes else "No",
        "report": REPORT,
        "extra": {"label": label},
    }
    return _sample(**(fields | changes))


def anomaly(answer: str, **changes: Any) -> Sample:
    """Which findings, open."""
    question = "Which findings are in this chest X-ray?"
    fields = {
        "task": "anomaly",
        "question": question,
        "options": None,
        "answer": answer,
        "answer_text": answer,
    }
    return _sample(**(fields | {"report": REPORT} | changes))


def temporal(**changes: Any) -> Sample:
    """How did the pleural effusion change: B, worsening."""
    options = ("stable", "worsening", "improving")
    stem = (
        "You are given two images: one reference image and one new image. "
        "Please identify the progression of pleural effusion."
    )
    fields = {
        "task": "temporal",
        "images": ("a.png", "b.png"),
        "question": question_text(stem, options),
        "options": options,
        "answer": "B",
        "answer_text": "worsening",
        "report": "FINDINGS: Large left pleural effusion, increased.",
        "extra": {"label": "pleural effusion", "prior_report": "FINDINGS: Small left pleural effusion."},
    }
    return _sample(**(fields | changes))
