"""Parts of a build: interruption, processes, stored images, mining and quarantine, near-duplicates, the card."""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chestx_jax.data import mining, read_samples
from chestx_jax.data.bench import BenchError, Recipe, build_bench, preview
from chestx_jax.data.bench.image_store import store_images
from chestx_jax.data.bench.near_duplicates import THRESHOLD, Crossings, signature
from chestx_jax.data.bench.study_json import study_from_json, study_to_json
from chestx_jax.data.images import open_image
from chestx_jax.data.pool import ordered_map
from chestx_jax.data.questions import QuestionError
from chestx_jax.data.schema import LABELS, Study
from chestx_jax.data.sources import Request, phantom, read_studies

EVERYTHING = Recipe(sampling="everything")
ROOT = Path(__file__).resolve().parents[2]


def study(folder: Path, name: str, size: tuple[int, int] = (8, 8), suffix: str = ".png", **fields) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{suffix}"
    Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, size, dtype=np.uint8)).save(path)
    values = {"findings": "Small left pleural effusion. The heart is normal in size.", **fields}
    labels = dict.fromkeys(LABELS, 0) | {"pleural effusion": 1}
    return Study(name, "a", (path,), labels=labels, **values)


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------- interruption


def interrupted(studies, after: int):
    for number, made in enumerate(studies):
        if number == after:
            raise KeyboardInterrupt
        yield made


def test_an_interrupted_build_goes_on(tmp_path, monkeypatch):
    made = list(phantom.studies(150, size=16, out=tmp_path / "in"))
    build_bench(made, tmp_path / "whole", EVERYTHING, progress=None)
    with pytest.raises(KeyboardInterrupt):
        build_bench(interrupted(made, 140), tmp_path / "out", EVERYTHING, progress=None)
    assert not list((tmp_path / "out").glob("*/*.jsonl"))  # nothing half-written, only working files
    kept = sorted((tmp_path / "out" / ".build" / "studies").iterdir())
    assert len(kept) == 2
    times = [file.stat().st_mtime_ns for file in kept]
    monkeypatch.setattr("chestx_jax.data.bench.build.shutil.rmtree", lambda *a, **k: None)
    build_bench(made, tmp_path / "out", EVERYTHING, progress=None)
    assert [file.stat().st_mtime_ns for file in kept] == times  # taken as they were
    working = {name: text for name, text in contents(tmp_path / "out").items() if name.startswith(".build")}
    assert working.keys() | contents(tmp_path / "whole").keys() == contents(tmp_path / "out").keys()
    for name, text in contents(tmp_path / "whole").items():
        assert contents(tmp_path / "out")[name] == text


def test_changed_studies_or_another_recipe_are_built_anew(tmp_path):
    made = [study(tmp_path / "in", str(i)) for i in range(3)]
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build_bench([*made[:2], *interrupted(made, 0)], out, EVERYTHING, progress=None)
    changed = [replace(s, findings="Clear lungs.") for s in made]
    build_bench(changed, out, EVERYTHING, progress=None)
    assert {s.report for s in read_samples(out / "single" / "train.jsonl")} == {"FINDINGS: Clear lungs."}
    assert not (out / ".build").exists()


def test_a_bench_that_is_being_rewritten_has_no_statistics(tmp_path, monkeypatch):
    out = tmp_path / "out"
    build_bench([study(tmp_path / "in", "1")], out, EVERYTHING, progress=None)
    monkeypatch.setattr("chestx_jax.data.bench.write.card", lambda stats: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_bench([study(tmp_path / "in", "1")], out, EVERYTHING, progress=None)
    assert not (out / "stats.json").exists()


# ------------------------------------------------------------------------------------- processes


def test_processes_change_nothing(tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        out = tmp_path / name
        studies = phantom.studies(70, size=16, out=out, processes=processes)
        build_bench(studies, out, Recipe(), processes=processes, progress=None)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_pool_keeps_order_reads_little_ahead_and_passes_errors_on():
    read = []

    def items():
        for item in range(100):
            read.append(item)
            yield item

    made = ordered_map(abs, items(), 2)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    assert len(read) < 20
    made.close()
    with pytest.raises(ValueError):
        list(ordered_map(int, ["1", "x"], 2))


def pid(item: int) -> int:
    return os.getpid()


def endless():
    while True:
        yield 0


def test_workers_end_with_a_caller_that_is_killed():
    program = (
        "from chestx_jax.data.pool import ordered_map\n"
        "from tests.data.test_bench_parts import endless, pid\n"
        "for made in ordered_map(pid, endless(), 2):\n"
        "    print(made, flush=True)\n"
    )
    command = [sys.executable, "-c", program]
    caller = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(caller.stdout.readline())
    os.kill(worker, 0)  # it is there
    caller.kill()
    caller.communicate()
    deadline = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------------------- images


def test_large_images_shrink_and_small_ones_are_copied(tmp_path):
    large = replace(study(tmp_path / "in", "large", (40, 20)), id="../l")
    small = study(tmp_path / "in", "small", (16, 12), prior=study(tmp_path / "in", "p", (8, 8), ".jpg"))
    stored = store_images(large, tmp_path / "out", 20)
    assert stored.images[0].suffix == ".jpg" and stored.images[0].parent.parent == tmp_path / "out"
    assert open_image(stored.images[0]).size == (10, 20)
    kept = store_images(small, tmp_path / "out", 20)
    assert kept.images[0].read_bytes() == small.images[0].read_bytes()
    assert kept.prior.images[0].read_bytes() == small.prior.images[0].read_bytes()
    assert store_images(kept, tmp_path / "out", 4) == kept  # already stored


def test_images_are_stored_once_a_study(tmp_path):
    made = [study(tmp_path / "in", str(i)) for i in range(5)]
    recipe = Recipe(sampling="everything", longest_side=64)
    stats = build_bench(made, tmp_path / "out", recipe, progress=None)
    files = [path for path in (tmp_path / "out" / "images").rglob("*") if path.is_file()]
    assert len(files) == stats["images"] == 5
    for sample in read_samples(tmp_path / "out" / "single" / "train.jsonl"):
        assert sample.images[0].startswith("../images/") and sample.image_paths[0].is_file()


def test_an_unreadable_image_is_quarantined(tmp_path):
    made = [study(tmp_path / "in", str(i)) for i in range(4)]
    made[0].images[0].write_bytes(b"no picture")
    recipe = Recipe(tasks=("single",), sampling="everything", longest_side=64)
    stats = build_bench(made, tmp_path / "out", recipe, progress=None)
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "a-single-0" and "neither PNG" in json.loads(line)["reasons"][0]
    assert stats["quarantined"] == 1 and stats["samples"] == 3


# ------------------------------------------------------------------------------------- mining


def test_rules_mine_and_verify(tmp_path):
    made = [study(tmp_path / "in", str(i)) for i in range(4)]
    recipe = Recipe(tasks=("single",), sampling="everything", miner="rules")
    stats = build_bench(made, tmp_path / "out", recipe, progress=None)
    samples = read_samples(tmp_path / "out" / "single" / "train.jsonl")
    assert samples and all(mining.verify(s).ok and s.reason_steps for s in samples)
    row = stats["verification"]["single"]
    assert row["mined"] == row["passed"] + row["quarantined"] == 4
    assert sum(row["steps"].values()) >= 4 and row["repaired"] == 0


def test_what_fails_verification_is_quarantined_with_its_reasons(tmp_path):
    def mine(samples):
        for sample in samples:
            steps = ("The report says that the heart is enlarged.", "So the answer is X.")
            yield mining.Mined(replace(sample, reason_steps=steps), "quarantined")

    made = [study(tmp_path / "in", str(i)) for i in range(2)]
    recipe = Recipe(tasks=("single",), sampling="everything", miner="llm")
    stats = build_bench(made, tmp_path / "out", recipe, mine=mine, progress=None)
    lines = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and stats["samples"] == 0
    reasons = stats["verification"]["single"]["reasons"]
    assert reasons["conclusion does not name the answer"] == reasons["leak"] == 2
    assert not any(reason.startswith("step") for reason in reasons)


def test_reasoning_that_the_source_brings_is_not_mined(tmp_path):
    studies = phantom.studies(20, size=16, out=tmp_path)
    stats = build_bench(studies, tmp_path, Recipe(sampling="everything", miner="rules"), progress=None)
    assert stats["verification"] == {} and stats["samples"] > 0


# ------------------------------------------------------------------------------------- recipe, working files


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"sampling": "fair"}, BenchError),
        ({"miner": "gpt"}, BenchError),
        ({"longest_side": 0}, BenchError),
        ({"tasks": ("triple",)}, QuestionError),
    ],
)
def test_impossible_recipes(fields, error):
    with pytest.raises(error):
        Recipe(**fields)


def test_a_miner_must_fit_the_recipe(tmp_path):
    with pytest.raises(BenchError, match="no function"):
        build_bench([], tmp_path, Recipe(miner="llm"), progress=None)
    with pytest.raises(BenchError, match="a function"):
        build_bench([], tmp_path, Recipe(miner="rules"), mine=list, progress=None)


def test_a_study_survives_json():
    made = next(s for s in phantom.studies(20) if s.prior)
    again = study_from_json(json.loads(json.dumps(study_to_json(made))))
    assert again.prior == study_from_json(json.loads(json.dumps(study_to_json(made.prior))))
    assert (again.images, again.labels, again.reason_steps) == (made.images, made.labels, made.reason_steps)
    assert again.progression == made.progression and again.report == made.report


# ------------------------------------------------------------------------------------- near-duplicates, card

REPORT = (
    "The heart size and mediastinal contours are within normal limits. The lungs are clear of focal "
    "consolidation, effusion or pneumothorax. No acute bony abnormality is seen. Degenerative changes of the "
    "thoracic spine are again noted and appear unchanged since the previous examination of the chest."
)


def test_near_duplicates_across_splits():
    crossings = Crossings()
    crossings.add("train", "1", REPORT)
    crossings.add("train", "1", REPORT)  # a second question of the study
    crossings.add("test", "2", REPORT.upper().replace(" NORMAL ", " NORMAL XXXX ") + " 12")
    crossings.add("test", "3", "Large right pneumothorax with shift of the mediastinum to the left side.")
    crossings.add("validation", "4", "")
    assert crossings.counts() == {"train": {"reports": 1}, "test": {"reports": 2, "near train": 1}}


def test_similarity_is_that_of_the_words():
    near = signature(REPORT.replace("unchanged", "stable"))
    assert (near == signature(REPORT)).mean() >= THRESHOLD
    half = signature(REPORT[: len(REPORT) // 2] + " Pacemaker leads end in the right atrium and ventricle.")
    assert (half == signature(REPORT)).mean() < THRESHOLD


def test_the_card_and_the_statistics(tmp_path):
    studies = phantom.studies(60, size=16, out=tmp_path)
    stats = build_bench(studies, tmp_path, Recipe(sampling="published"), progress=None)
    text = (tmp_path / "README.md").read_text()
    for section in (
        "Files",
        "Counts",
        "Labels",
        "Questions",
        "Reasoning",
        "Splits",
        "Use",
        "Limits",
        "Versions",
    ):
        assert f"\n## {section}\n" in text
    assert "Apache-2.0" in text and stats["content_sha256"] in text
    assert set(stats["shortcuts"]) == {task for task, splits in stats["tasks"].items() if splits}
    row = stats["shortcuts"]["single"]
    assert row["warning"] and row[row["best"]] > row["chance"] + 0.1
    lines = hashlib.sha256((tmp_path / "single" / "train.jsonl").read_bytes()).hexdigest()
    again = build_bench(
        phantom.studies(60, size=16, out=tmp_path), tmp_path, Recipe(sampling="published"), progress=None
    )
    assert again["content_sha256"] == stats["content_sha256"]
    assert hashlib.sha256((tmp_path / "single" / "train.jsonl").read_bytes()).hexdigest() == lines
    other = build_bench(phantom.studies(60, seed=1, size=16, out=tmp_path), tmp_path, Recipe(), progress=None)
    assert other["content_sha256"] != stats["content_sha256"]


def test_the_card_claims_no_more_than_is_known(tmp_path):
    made = [replace(study(tmp_path / "in", str(i)), patient=None, source="serial") for i in range(3)]
    stats = build_bench(made, tmp_path / "out", replace(EVERYTHING, longest_side=8), progress=None)
    text = (tmp_path / "out" / "README.md").read_text()
    assert stats["tasks"]["single"]["train"]["patients"] is None
    assert "| single | train | 3 | 3 | not known |" in text
    assert "temporal: no study answers one" in text and "- temporal:" not in text
    assert "read in the notes by rules" in text  # where the labels come from
    assert "at most 8 pixels long" in text and "--longest_side=8" in text and "--source=serial" in text
    assert "too few to tell models apart" not in text  # train is no test set


def test_a_small_test_set_is_called_small(tmp_path):
    made = [replace(study(tmp_path / "in", str(i)), split="test") for i in range(3)]
    build_bench(made, tmp_path / "out", EVERYTHING, progress=None)
    assert (
        "too few to tell models apart: single/test, anomaly/test" in (tmp_path / "out/README.md").read_text()
    )


def test_a_stage_that_failed_is_the_reason(tmp_path):
    def mine(samples):
        return [mining.Mined(sample, "quarantined", ("plan: no JSON",)) for sample in samples]

    recipe = Recipe(tasks=("single",), sampling="everything", miner="llm")
    stats = build_bench([study(tmp_path / "in", "1")], tmp_path / "out", recipe, mine=mine, progress=None)
    assert stats["verification"]["single"]["reasons"] == {"plan": 1}


def test_a_preview_is_what_would_be_mined(tmp_path):
    made = [study(tmp_path / "in", str(i)) for i in range(4)]
    seen = []

    def mine(samples):
        seen.extend(samples)
        return [mining.Mined(mining.mine_rules(sample, 0), "mined") for sample in samples]

    recipe = Recipe(sampling="everything", miner="llm")
    build_bench(made, tmp_path / "out", recipe, mine=mine, progress=None)
    assert preview(made, recipe) == seen


def test_serial_films_give_temporal_questions_with_two_images(shared_data, tmp_path):
    request = Request(shared_data / "serial", tmp_path, 0, 0, 0)
    recipe = Recipe(tasks=("temporal",), miner="rules", longest_side=256)
    build_bench(read_studies("serial", request, lambda record: None), tmp_path, recipe, progress=None)
    samples = [s for file in (tmp_path / "temporal").glob("*.jsonl") for s in read_samples(file)]
    assert len(samples) >= 8
    for sample in samples:
        assert len(sample.images) == 2 and sample.images[0] != sample.images[1]
        assert max(open_image(sample.image_paths[0]).size) <= 256
        assert mining.verify(sample).ok and sample.extra["prior_report"]
