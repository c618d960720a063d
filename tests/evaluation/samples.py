"""Small samples and predictions for the tests of evaluation."""

from pathlib import Path
from typing import Any

from PIL import Image

from chestx_jax.data.schema import Sample, question_text
from chestx_jax.evaluation.accuracy import Case, judge

STEPS = ("There is a left pleural effusion.", "The heart is enlarged.")


def binary(number: int, answer: str = "A", root: Path = Path(), **changes: Any) -> Sample:
    """A question about edema; the image is `root`/`number`.png."""
    options = ("Yes", "No")
    values: dict[str, Any] = {
        "id": f"binary-{number}",
        "study": str(number),
        "patient": None,
        "source": "test",
        "task": "binary",
        "images": (f"{number}.png",),
        "question": question_text("Does this chest X-ray show edema?", options),
        "options": options,
        "answer": answer,
        "answer_text": dict(zip("AB", options, strict=True)).get(answer, answer),
        "reason_steps": STEPS,
        "report": "FINDINGS: Left pleural effusion. Cardiomegaly.",
        "root": root,
    }
    return Sample(**values | changes)


def anomaly(number: int, answer: str, root: Path = Path()) -> Sample:
    """An open question."""
    return binary(
        number,
        root=root,
        id=f"anomaly-{number}",
        task="anomaly",
        question="Which findings are in this chest X-ray?",
        options=None,
        answer=answer,
        answer_text=answer,
    )


def said(text: str) -> dict[str, str]:
    """A row of predictions without its id."""
    return {"prediction": text}


def cases(*pairs: tuple[Sample, str]) -> list[Case]:
    """Judged cases of samples and texts."""
    return judge([sample for sample, _ in pairs], {sample.id: said(text) for sample, text in pairs})


def draw(sample: Sample) -> None:
    """Write the sample's images."""
    for path in sample.image_paths:
        Image.new("L", (32, 40), 90).save(path)
