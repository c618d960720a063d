import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.data import Sample, SampleError, read_samples, write_samples
from chestx_jax.data.schema import FIELDS, LETTERS, TASKS, Study, question_text

GOOD = {
    "id": "a-1",
    "study": "1",
    "patient": None,
    "source": "a",
    "task": "single",
    "images": ["x.png"],
    "question": "Which finding is in this chest X-ray? Options:\nA) edema\nB) no finding",
    "options": ["edema", "no finding"],
    "answer": "B",
    "answer_text": "no finding",
    "reason_steps": ["The lungs are clear."],
    "report": "",
}


def written(path: Path, *records: object) -> Path:
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(SampleError) as caught:
        read_samples(path)
    return caught.value.problems


def test_importing_the_package_does_not_import_jax() -> None:
    modules = "sys, chestx_jax.data, chestx_jax.data.bench, chestx_jax.data.chat, chestx_jax.data.images"
    code = f"import {modules}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reads_fields_and_resolves_images(tmp_path: Path) -> None:
    (sample,) = read_samples(written(tmp_path / "s.jsonl", GOOD))
    assert sample.images == ("x.png",) and sample.options == ("edema", "no finding")
    assert sample.image_paths == (tmp_path / "x.png",)


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    record = GOOD | {"plan": {"edema": ["ü\u2028", None, 1.5]}}
    samples = read_samples(written(tmp_path / "s.jsonl", record))
    write_samples(tmp_path / "t.jsonl", samples)
    assert json.loads((tmp_path / "t.jsonl").read_text("utf-8")) == record


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "reason_steps"])
def test_a_missing_field_is_an_error(tmp_path: Path, name: str) -> None:
    bad = {k: v for k, v in GOOD.items() if k != name}
    path = written(tmp_path / "s.jsonl", GOOD | {"id": "first"}, bad)
    assert problems(path) == (f"{path}:2: field '{name}': missing",)


@pytest.mark.parametrize("steps", [None, [], "absent"])
def test_answer_only_samples(tmp_path: Path, steps: object) -> None:
    record = GOOD | {"reason_steps": steps}
    if steps == "absent":
        del record["reason_steps"]
    (sample,) = read_samples(written(tmp_path / "s.jsonl", record))
    assert sample.reason_steps == ()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": 3}, "id"),
        ({"id": " "}, "id"),
        ({"patient": 7}, "patient"),
        ({"task": "triple"}, "task"),
        ({"images": "x.png"}, "images"),
        ({"images": []}, "images"),
        ({"images": [""]}, "images"),
        ({"question": ""}, "question"),
        ({"question": "Which finding is in this chest X-ray?"}, "question"),
        ({"options": None}, "options"),
        ({"options": ["edema"]}, "options"),
        ({"options": ["edema", "no finding", "pneumonia"]}, "options"),
        ({"options": ["no finding", "edema"]}, "options"),
        ({"options": [1, 2]}, "options"),
        ({"answer": "C"}, "answer"),
        ({"answer": "b"}, "answer"),
        ({"answer": "AB"}, "answer"),
        ({"answer": ""}, "answer"),
        ({"answer_text": "edema"}, "answer_text"),
        ({"answer_text": ""}, "answer_text"),
        ({"reason_steps": "text"}, "reason_steps"),
        ({"reason_steps": ["a", ""]}, "reason_steps"),
        ({"report": None}, "report"),
        ({"task": "anomaly", "options": None}, "options"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_field(tmp_path: Path, change: dict, field: str) -> None:
    path = written(tmp_path / "s.jsonl", GOOD | change)
    assert any(p.startswith(f"{path}:1: field '{field}': ") for p in problems(path))


def test_an_option_listed_twice_is_an_error(tmp_path: Path) -> None:
    options = ["edema", "edema"]
    question = question_text("Q?", ("edema", "edema"))
    record = GOOD | {"options": options, "question": question, "answer_text": "edema"}
    assert "twice" in problems(written(tmp_path / "s.jsonl", record))[0]


def test_all_bad_lines_are_reported_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "s.jsonl", "{", "", GOOD, GOOD, "[1]", GOOD | {"id": "x", "answer": "Z"})
    found = problems(path)
    assert [p.removeprefix(f"{path}:").split(":")[0] for p in found] == ["1", "4", "5", "6"]
    assert (
        "not a line of JSON" in found[0] and "line 3" in found[1] and "list" in found[2] and "'Z'" in found[3]
    )


def test_the_message_is_bounded_but_the_list_is_not(tmp_path: Path) -> None:
    path = written(tmp_path / "s.jsonl", *["nonsense"] * 50)
    with pytest.raises(SampleError, match="and 30 more") as caught:
        read_samples(path)
    assert len(caught.value.problems) == 50


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    assert problems(path)[0].startswith(f"{path}:2: not a line of JSON")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_samples(tmp_path / "nowhere.jsonl")


def test_writing_elsewhere_keeps_the_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"x")
    samples = read_samples(written(tmp_path / "a" / "s.jsonl", GOOD))
    write_samples(tmp_path / "b" / "c" / "s.jsonl", samples)
    (sample,) = read_samples(tmp_path / "b" / "c" / "s.jsonl")
    assert sample.images == ("../../a/x.png",) and sample.image_paths[0].read_bytes() == b"x"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = written(tmp_path / "s.jsonl", GOOD)
    before = path.read_bytes()
    (sample,) = read_samples(path)
    bad = dataclasses.replace(sample, id="other", answer="Q")
    with pytest.raises(SampleError, match="field 'answer'"):
        write_samples(path, [sample, bad])
    with pytest.raises(SampleError, match="used twice"):
        write_samples(path, [sample, sample])
    with pytest.raises(SampleError, match="cannot be written as JSON"):
        write_samples(path, [dataclasses.replace(sample, extra={"loss": float("nan")})])
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["s.jsonl"]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(str.strip)
LINE = TEXT.filter(lambda t: "\n" not in t and "Options:" not in t)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    task = draw(st.sampled_from(TASKS))
    options = None
    answer = text = draw(LINE)
    if task != "anomaly":
        options = tuple(draw(st.lists(LINE, min_size=2, max_size=6, unique=True)))
        index = draw(st.integers(0, len(options) - 1))
        answer, text = LETTERS[index], options[index]
    return Sample(
        id=draw(TEXT),
        study=draw(TEXT),
        patient=draw(st.none() | TEXT),
        source=draw(TEXT),
        task=task,
        images=tuple(draw(st.lists(TEXT, min_size=1, max_size=3))),
        question=question_text(draw(LINE), options),
        options=options,
        answer=answer,
        answer_text=text,
        reason_steps=tuple(draw(st.lists(TEXT, max_size=3))),
        report=draw(TEXT),
        extra={"plan": draw(st.none() | st.lists(TEXT, max_size=2))},
    )


@given(st.lists(samples(), max_size=4, unique_by=lambda s: s.id))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, written_samples: list[Sample]
) -> None:
    path = tmp_path_factory.mktemp("s") / "s.jsonl"
    assert write_samples(path, written_samples) == len(written_samples)
    read = read_samples(path)
    assert [dataclasses.replace(s, root=Path()) for s in read] == written_samples


def test_the_real_benchmark_goes_through_unchanged(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "radrbench" / "openi_samples.jsonl"
    read = read_samples(source)
    assert len(read) == 394
    assert all(path.is_file() for sample in read for path in sample.image_paths)
    in_place = [
        dataclasses.replace(sample, root=Path()) for sample in read
    ]  # keeps the image paths as they are
    write_samples(tmp_path / "copy.jsonl", in_place)
    pairs = zip(source.open(encoding="utf-8"), (tmp_path / "copy.jsonl").open(encoding="utf-8"), strict=True)
    assert all(json.loads(old) == json.loads(new) for old, new in pairs)


@pytest.mark.parametrize(
    ("findings", "impression", "report"),
    [
        ("Clear.", "Normal.", "FINDINGS: Clear. IMPRESSION: Normal."),
        ("", " Normal. ", "IMPRESSION: Normal."),
        ("", "", ""),
    ],
)
def test_report_of_a_study(findings: str, impression: str, report: str) -> None:
    assert Study("1", "a", (), findings, impression).report == report
