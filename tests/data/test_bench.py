import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chestx_jax.data import read_samples
from chestx_jax.data.bench import BenchError, Recipe, split_of
from chestx_jax.data.bench import build_bench as build
from chestx_jax.data.schema import LABELS, TASKS, Sample, Study
from chestx_jax.data.sources import Rejected

ABSENT = dict.fromkeys(LABELS, 0)


def build_bench(made: list[Study], out: Path, tasks: Sequence[str] = TASKS, **values: Any) -> dict[str, Any]:
    """Everything that the studies answer, unless the recipe says otherwise."""
    fields = {name: values.pop(name) for name in list(values) if name in Recipe.__dataclass_fields__}
    recipe = Recipe(**{"tasks": tuple(tasks), "sampling": "everything", **fields})
    return build(made, out, recipe, **{"progress": None, **values})


def studies(folder: Path, count: int, first: int = 0, **fields: object) -> list[Study]:
    """Studies of which every second has edema and every third pneumonia, with a small picture each."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for i in range(first, first + count):
        Image.new("L", (4, 4), i % 256).save(folder / f"{i}.png")
        labels = ABSENT | {"edema": int(i % 2 == 0), "pneumonia": int(i % 3 == 0)}
        made.append(Study(str(i), "a", (folder / f"{i}.png",), "Text.", labels=labels, **fields))
    return made


def read_all(out: Path) -> dict[str, list[Sample]]:
    return {str(path.relative_to(out)): read_samples(path) for path in sorted(out.glob("*/*.jsonl"))}


def contents(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*.json*")}


def test_files_read_back_with_their_images(tmp_path: Path) -> None:
    stats = build_bench(studies(tmp_path / "in", 100), tmp_path / "out")
    files = read_all(tmp_path / "out")
    assert {f"{task}/train.jsonl" for task in ("binary", "single", "multiple", "anomaly")} <= set(files)
    for name, samples in files.items():
        task, split = name.removesuffix(".jsonl").split("/")
        assert {sample.task for sample in samples} == {task}
        assert all(path.is_file() for sample in samples for path in sample.image_paths)
        assert samples[0].images[0].startswith("../../in/")
        assert stats["tasks"][task][split]["samples"] == len(samples)
        assert stats["tasks"][task][split]["answers"] == Counter(s.answer for s in samples if s.options)
    assert json.loads((tmp_path / "out" / "stats.json").read_text()) == stats
    assert stats["samples"] == sum(map(len, files.values())) and stats["studies"] == 100
    assert stats["tasks"]["temporal"] == {}
    row = stats["tasks"]["binary"]["train"]["labels"]["edema"]
    assert row["yes"] == row["no"] > 0


def test_the_same_build_twice_and_another_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_bench(studies(tmp_path / "in", 60), tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["single/train.jsonl"] != contents(tmp_path / "c")["single/train.jsonl"]


def test_more_studies_change_nothing_else(tmp_path: Path) -> None:
    build_bench(studies(tmp_path / "in", 40), tmp_path / "out", ["single", "multiple"])
    before = {s.id: s for samples in read_all(tmp_path / "out").values() for s in samples}
    build_bench(studies(tmp_path / "in", 80), tmp_path / "out", ["single", "multiple"])
    after = {s.id: s for samples in read_all(tmp_path / "out").values() for s in samples}
    assert len(after) > len(before) and {i: after[i] for i in before} == before


def test_patients_stay_in_one_split_and_shares_are_kept() -> None:
    made = [Study(str(i), "a", (), patient=f"p{i // 4}") for i in range(8000)]
    splits: dict[str, set[str]] = {}
    for study in made:
        splits.setdefault(str(study.patient), set()).add(split_of(study))
    assert {len(found) for found in splits.values()} == {1}
    share = Counter(split_of(study) for study in made)
    assert abs(share["train"] / 8000 - 0.8) < 0.03 and abs(share["test"] / 8000 - 0.1) < 0.02
    assert set(share) == {"train", "validation", "test"}


def test_official_splits_are_kept(tmp_path: Path) -> None:
    both = studies(tmp_path / "in", 10, split="dev") + studies(tmp_path / "in", 10, 10, split="test")
    build_bench(both, tmp_path / "out", ["anomaly"])
    files = read_all(tmp_path / "out")
    assert set(files) == {"anomaly/dev.jsonl", "anomaly/test.jsonl"}
    assert {int(s.study) < 10 for s in files["anomaly/dev.jsonl"]} == {True}
    bad = studies(tmp_path / "in", 1, split="../x")
    with pytest.raises(BenchError, match="field 'split'"):
        build_bench(bad, tmp_path / "out")


def test_unusable_studies_are_listed(tmp_path: Path) -> None:
    good, lost, empty, none = studies(tmp_path / "in", 4)
    lost.images[0].unlink()
    empty.images[0].write_bytes(b"")
    none = Study(none.id, "a", ())
    left_out = [Rejected("table: row 5", "no text")]
    stats = build_bench([good, lost, empty, none, good], tmp_path / "out", rejected=left_out)
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [line["record"] for line in lines] == ["table: row 5", *(f"a: study {i}" for i in (1, 2, 3, 0))]
    reasons = [line["reason"] for line in lines]
    assert "no such image" in reasons[1] and "empty image" in reasons[2]
    assert reasons[3:] == ["no image", "this study id was used before"]
    assert stats["rejected"] == 5 and stats["studies"] == 1


def test_a_prior_without_its_image_is_unusable(tmp_path: Path) -> None:
    (study,) = studies(
        tmp_path / "in", 1, prior=Study("p", "a", (tmp_path / "gone.png",)), progression={"edema": "stable"}
    )
    stats = build_bench([study], tmp_path / "out")
    assert stats["rejected"] == 1


def test_a_second_build_leaves_no_stale_split(tmp_path: Path) -> None:
    build_bench(studies(tmp_path / "in", 4, split="old"), tmp_path / "out", ["anomaly"])
    build_bench(studies(tmp_path / "in", 4, split="new"), tmp_path / "out", ["anomaly"])
    assert set(read_all(tmp_path / "out")) == {"anomaly/new.jsonl"}


def test_studies_without_a_question_are_counted(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    stats = build_bench([Study("1", "a", (tmp_path / "x.png",))], tmp_path / "out")
    assert (stats["studies"], stats["studies_without_question"], stats["samples"]) == (1, 1, 0)


def test_progress_tells_counts(tmp_path: Path) -> None:
    line = io.StringIO()
    build_bench(studies(tmp_path / "in", 3), tmp_path / "out", progress=line)
    assert line.getvalue().startswith("3 studies, ") and line.getvalue().endswith("studies/s\n")
    assert "questions elected" in line.getvalue()


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.build_bench", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])


def test_the_program(tmp_path: Path) -> None:
    done = run(
        "--source=phantom",
        "--studies=12",
        "--image_size=32",
        "--seed=3",
        f"--out={tmp_path}",
        "--task=binary",
        "--processes=2",
    )
    assert done.returncode == 0, done.stderr
    assert "12 studies used" in done.stdout
    samples = [s for group in read_all(tmp_path).values() for s in group]
    assert samples and all(s.task == "binary" and s.reason_steps for s in samples)
    assert Image.open(samples[0].image_paths[0]).size == (32, 32)


def test_the_program_says_what_is_missing(tmp_path: Path) -> None:
    done = run("--source=openi", f"--root={tmp_path}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Open-i collection at ") and "indiana_reports.csv" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_the_real_collection(shared_data: Path, tmp_path: Path) -> None:
    done = run("--source=openi", f"--root={shared_data / 'openi'}", f"--out={tmp_path}", "--miner=none")
    assert done.returncode == 0, done.stderr
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["studies"] == 1225 and stats["rejected"] == 0
    files = read_all(tmp_path)
    assert sum(map(len, files.values())) == stats["samples"] > 2000
    where = {s.study: name.split("/")[1] for name, group in files.items() for s in group}
    assert all(where[s.study] == name.split("/")[1] for name, group in files.items() for s in group)
    assert not any(row["warning"] for row in stats["shortcuts"].values())
    assert "warning" not in done.stdout
