"""Programs as a user starts them: flags, exit codes, one-line errors, kill -9 and rerun."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from chestx_jax.data.embedded import build_small_bench
from chestx_jax.data.jsonl import write_samples
from chestx_jax.weights import load_pretrained
from chestx_jax.weights.pretrained import flat_params
from tests.evaluation.samples import binary, draw
from tests.launch.programs import ROOT, start
from tests.llm.server import ScriptedServer, first_of_each

PROGRAMS = ("build_bench", "sft", "predict", "evaluate", "export", "demo", "benchmark")


def run(program: str, *flags: str) -> tuple[int, str]:
    process = start(program, *flags)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "bench"
    build_small_bench(out, source="phantom", root=None, studies=24, seed=0)
    return out


def recipe(bench: Path, workdir: Path, **changes: object) -> list[str]:
    config: dict[str, object] = {
        "data.bench": bench,
        "data.image_size": 56,
        "data.train": "(('binary/train.jsonl','reason',1.0),)",
        "data.validation": "()",
        "data.buckets": "((208,16),)",
        "batch_size": 4,
        "steps": 12,
        "save_every": 2,
        "eval_every": 100,
        **changes,
    }
    flags = [f"--config.{name}={value}" for name, value in config.items()]
    return [f"--config={ROOT}/configs/sft.py:tiny", f"--workdir={workdir}", *flags]


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_reads_well_and_needs_nothing_else(program: str) -> None:
    code, output = run(program, "--help")
    assert code == 1  # absl's convention
    assert f"python -m launch.{program}" in output and "--" in output


def test_killed_at_any_moment_a_rerun_ends_as_an_unbroken_run(bench: Path, tmp_path: Path) -> None:
    """kill -9 as soon as some step's checkpoint is there, then the same line again."""
    code, output = run("sft", *recipe(bench, tmp_path / "unbroken"))
    assert code == 0, output
    process = start("sft", *recipe(bench, tmp_path / "killed"))
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, output = run("sft", *recipe(bench, tmp_path / "killed"))
    assert code == 0, output
    ours, theirs = (flat_params(load_pretrained(tmp_path / name)) for name in ("killed", "unbroken"))
    for path in theirs:
        np.testing.assert_array_equal(np.asarray(ours[path]), np.asarray(theirs[path]), err_msg=path)
    rows = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 13))


def test_sigterm_saves_and_tells_a_scheduler_to_try_again(bench: Path, tmp_path: Path) -> None:
    process = start("sft", *recipe(bench, tmp_path / "run", steps=100000, save_every=100000))
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while (not metrics.exists() or not metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75, output
    assert "run the same line to resume" in output
    assert len(list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.bench": "", "data.phantom_studies": 0}, "config.data.bench is empty"),
        ({"model.arch": "huge"}, "config.model.arch is 'huge'"),
        ({"data.buckets": "((64,16),)"}, "samples fit no bucket"),
        ({"mesh.fsdp": 3}, "does not fit 1 devices"),
        ({"model.pretrained": "/nowhere", "model.processor": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_a_user_can_mend_is_one_message_without_a_traceback(
    bench: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    code, output = run("sft", *recipe(bench, tmp_path / "run", **changes))
    assert code == 1 and "error: " in output and message in output
    assert "Traceback" not in output


def test_a_misspelt_config_field_is_refused(bench: Path, tmp_path: Path) -> None:
    code, output = run("sft", *recipe(bench, tmp_path / "run", **{"optimizer.peek": 1}))
    assert code != 0 and "peek" in output


def test_predict_wants_a_file_or_a_question(tmp_path: Path) -> None:
    code, output = run("predict", "--model=x", "--data=y")
    assert code == 1 and "--images and --question" in output


def test_evaluate_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    code, output = run("evaluate", "--data=nowhere.jsonl", "--predictions=none.jsonl", f"--out={tmp_path}")
    assert code == 1 and "nowhere.jsonl" in output and "Traceback" not in output


def test_evaluate_with_a_judge(tmp_path: Path) -> None:
    """--dry_run sends nothing, the judge's calls are told, its judgments can be given back."""
    sample = binary(1, root=tmp_path)
    draw(sample)
    data, predictions, out = tmp_path / "samples.jsonl", tmp_path / "m.jsonl", tmp_path / "out"
    write_samples(data, [sample])
    text = "<think> There is a left pleural effusion. </think><answer> A </answer>"
    predictions.write_text(json.dumps({"id": sample.id, "prediction": text}) + "\n")
    given = [f"--data={data}", f"--predictions={predictions}", f"--out={out}"]
    with ScriptedServer(first_of_each).running() as server:
        judge = [f"--llm_base_url={server.url}", "--llm_model=some-judge"]
        code, output = run("evaluate", *given, *judge, "--dry_run")
        assert code == 0 and "5 to ask" in output and not server.bodies, output
        code, output = run("evaluate", *given, *judge)
    assert code == 0 and "RadRScore, judged by some-judge" in output and "5 calls" in output, output
    judged = f"--judged={out / 'judged.jsonl'}"
    code, output = run("evaluate", f"--data={data}", judged, f"--out={tmp_path / 'again'}")
    assert code == 0 and "RadRScore, judgments of judged.jsonl" in output, output
    code, output = run("evaluate", *given, judged)
    assert code != 0 and "give --predictions or --judged" in output
