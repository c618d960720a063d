"""Parts of pages for the tests and the benchmark: plain, hostile, many."""

import base64
import io

import numpy as np
from PIL import Image

from chestx_jax.evaluation.page import Evidence, Item, Picture, Span, Text

ATTACKS = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 1">',
    "<!--<script>",
    '"><svg onload="window.hacked = 1">',
    "{{ 7 * 7 }}{% raw %}",
    "javascript:window.hacked=1",
    "\u2028\u2029 \ud83e\udec1 \x00",
)
GOLD = (
    "There is no pleural effusion.",
    "The heart is enlarged.",
    "So the answer is B, edema is not present.",
)
SAID = ("We look for an effusion.", "There is a left pleural effusion.", "The heart is enlarged.", "Bones.")
VERDICTS = ("planned", "contradicted", "supported", "empty")


def thumbnail(seed: int = 0) -> str:
    """A small grey JPEG as a data URI."""
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def item(number: int, *, right: bool, score: float, filler: str = "", pictures: int = 2) -> Item:
    """A case with gold reasoning, a report and one judged text."""
    gold, report = "\n".join(GOLD), "FINDINGS: No pleural effusion. The heart is enlarged. " + filler
    text = f"<think> {' '.join(SAID)} {filler} </think><answer> {'B' if right else 'A'} </answer>"
    spans = []
    for words, verdict in zip(SAID, VERDICTS, strict=True):
        start = text.index(words)
        evidence = [Evidence("left pleural effusion: contradicted by the report", (1, 10, 30))]
        spans.append(Span(start, start + len(words), verdict, evidence if verdict == "contradicted" else []))
    return Item(
        id=f"case-{number}",
        group=("binary", "single", "anomaly")[number % 3],
        question="Does this chest X-ray show edema? Options:\nA) Yes\nB) No",
        answer="B) No",
        pictures=[Picture(f"image {i}", thumbnail(i)) for i in range(pictures)],
        references=[Text("Gold reasoning", gold, [Span(0, len(GOLD[0]), "missed")]), Text("Report", report)],
        texts=[
            Text("model", text, spans, "B) No" if right else "A) Yes", right, {"offline RadRScore": score})
        ],
    )


def items(count: int, filler: str = "") -> list[Item]:
    """Every fourth is wrong; scores go round from 0 to 0.9."""
    return [item(i, right=i % 4 != 0, score=i % 10 / 10, filler=f"{filler} word{i}") for i in range(count)]


def hostile() -> Item:
    """Attacks in every field that a file can fill."""
    all_of_them = " ".join(ATTACKS)
    return Item(
        id=all_of_them,
        group=ATTACKS[0],
        question=all_of_them,
        answer=ATTACKS[1],
        pictures=[Picture(ATTACKS[2], thumbnail()), Picture(ATTACKS[2], missing=ATTACKS[4])],
        captions=[ATTACKS[0]],
        references=[Text(ATTACKS[0], all_of_them, [Span(0, len(all_of_them), "missed")])],
        texts=[
            Text(
                ATTACKS[4],
                all_of_them,
                [Span(0, 40, "contradicted", [Evidence(all_of_them, (0, 0, 60))])],
                ATTACKS[1],
                False,
                {ATTACKS[2]: 0.5},
                {ATTACKS[3]: ATTACKS[4]},
            )
        ],
    )
