"""Size and opening time of the evaluation page with many cases, in headless Chromium.

    python -m benchmarks.page [--cases=2000] [--json=page.json]

Each case has gold reasoning and a prediction of about 700 characters each with verdicts, a report of 400,
and no image. Opening time is what the browser reports (navigation start to domComplete, the median of five
loads in one browser); filtering is one search of a word through all cases. Without Chromium, its driver or
selenium only the size is measured.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from chestx_jax.evaluation.page import Evidence, Item, Span, Text, render

SENTENCES = (
    "There is a small left pleural effusion with adjacent basal atelectasis.",
    "The cardiac silhouette is enlarged but unchanged.",
    "No pneumothorax is seen on either side.",
    "We look for consolidation in the lower lobes first.",
    "The mediastinal contours are within normal limits.",
    "Median sternotomy wires are intact.",
)
VERDICTS = ("supported", "contradicted", "unmentioned", "repeated", "empty")
LOADS = 5


def item(number: int, draw: random.Random) -> Item:
    """One case with texts of a usual length."""

    def text(title: str, verdicts: tuple[str, ...], right: bool | None) -> Text:
        spans, words = [], ""
        for _ in range(14):
            sentence = draw.choice(SENTENCES)
            evidence = [Evidence("left pleural effusion: supported by the report", (1, 0, 71))]
            spans.append(Span(len(words), len(words) + len(sentence), draw.choice(verdicts), evidence))
            words += sentence + " "
        return Text(title, words, spans, "B) No", right, {"offline RadRScore": draw.random()})

    report = Text("Report", " ".join(draw.choices(SENTENCES, k=6)) + " " * 71)
    return Item(
        id=f"case-{number}",
        group=draw.choice(("binary", "single", "multiple")),
        question="Does this chest X-ray show pleural effusion? Options:\nA) Yes\nB) No",
        answer="B) No",
        pictures=(),
        references=[text("Gold reasoning", ("recalled", "missed"), None), report],
        texts=[text("model", VERDICTS, draw.random() < 0.7)],
    )


def opened(page: Path) -> dict[str, Any]:
    """Milliseconds to open and to search, from the browser; empty without one."""
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        return {}
    if not binary or not driver:
        return {}
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        times = []
        for _ in range(LOADS):
            window.get(page.as_uri())
            times.append(
                window.execute_script("return performance.getEntriesByType('navigation')[0].domComplete")
            )
        search = window.execute_async_script(
            "const done = arguments[0], field = document.getElementById('search'), began = performance.now();"
            "new MutationObserver(() => done(performance.now() - began))"
            ".observe(document.getElementById('count'), {childList: true});"
            "field.value = 'sternotomy'; field.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        return {"open_ms": statistics.median(times), "open_ms_all": times, "search_ms": search}
    finally:
        window.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    draw = random.Random(0)
    cases = [item(i, draw) for i in range(arguments.cases)]
    began = time.perf_counter()
    html = render("Benchmark", [], [], cases)
    result: dict[str, Any] = {
        "cases": arguments.cases,
        "megabytes": round(len(html.encode()) / 1e6, 2),
        "render_s": round(time.perf_counter() - began, 2),
    }
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory) / "report.html"
        page.write_text(html, encoding="utf-8")
        result |= opened(page)
    print(json.dumps(result, indent=2))
    if "open_ms" not in result:
        print("opening was not measured: Chromium, its driver or selenium is missing")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
