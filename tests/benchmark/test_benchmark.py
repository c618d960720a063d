"""The measuring program: which jobs, what becomes of their seconds, a run that was stopped, the whole on a toy."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from chestx_jax.benchmark import growth, jobs, report, run
from chestx_jax.benchmark.clock import WARM_UP, Measured, repeat
from chestx_jax.benchmark.jobs import OURS, TRANSFORMERS, TRL, TUNIX, Job

ROOT = Path(__file__).resolve().parents[2]
OURS_TRAIN, THEIRS_TRAIN = (jobs.train_job("S", who, 5) for who in (OURS, TRANSFORMERS))


def measured(*cpu: float, work: float = 0.0, **facts: object) -> Measured:
    return Measured(list(cpu), [2 * one for one in cpu], 9.0, 10_000_000, work, facts)


PEAK = Measured([], [], work=100.0, facts={"gemm": {"numpy": 100.0, "jax": 90.0}})


def test_ours_and_theirs_do_the_same_and_stand_side_by_side() -> None:
    plan = jobs.plan(["S", "M"], ["train", "generate", "grpo"], 5, [TRANSFORMERS, TRL])
    things = [dataclasses.replace(job, who="") for job in plan[1:]]
    assert things[::2] == things[1::2] and [job.who for job in plan[1::2]] == [OURS] * 8
    assert [job.batch for job in plan if job.measure == "generate" and job.who == OURS] == [8, 32] * 2
    assert {job.who for job in plan if job.measure == "grpo"} == {OURS, TRL}


def test_tunix_which_does_not_train_alike_generates_and_reinforces() -> None:
    plan = jobs.plan(["S"], ["train", "generate", "grpo"], 5, [TUNIX])
    assert [(job.measure, job.batch) for job in plan if job.who == TUNIX] == [
        ("generate", 8),
        ("generate", 32),
        ("grpo", 4),
    ]


def test_who_is_installed_has_an_environment(tmp_path: Path) -> None:
    python = tmp_path / TUNIX / "bin" / "python"
    python.parent.mkdir(parents=True)
    assert TUNIX not in run.installed(tmp_path)
    python.touch()
    assert run.installed(tmp_path)[TUNIX] == python


def test_nothing_is_compared_with_what_is_not_installed() -> None:
    assert {job.who for job in jobs.plan(["S"], ["train", "grpo"], 5, [])} == {OURS}


def test_memory_comes_from_the_training_step_which_is_measured_once() -> None:
    assert jobs.plan(["S"], ["memory", "train"], 5, []) == jobs.plan(["S"], ["memory"], 5, [])


@pytest.mark.parametrize(("sizes", "only"), [(["XL"], ["train"]), (["S"], ["speed"])])
def test_unknown_names_are_named(sizes: list[str], only: list[str]) -> None:
    with pytest.raises(jobs.PlanError, match=r"XL|speed"):
        jobs.plan(sizes, only, 5, [])


def test_calls_that_warm_up_are_not_counted() -> None:
    calls: list[int] = []
    found = repeat(lambda: calls.append(1), repeats=3)
    assert len(calls) == WARM_UP + 3 and len(found.cpu) == len(found.wall) == 3
    assert found.peak_bytes > 10_000_000


def test_medians_ratio_and_efficiency() -> None:
    """Medians 2 and 5 s; 120 operations in 2 s on a machine of 100 a second."""
    found = {
        Job("peak", OURS, "S"): PEAK,
        OURS_TRAIN: measured(1, 2, 99, work=120.0, first_loss=6.0),
        THEIRS_TRAIN: measured(4, 5, 6, first_loss=6.0001),
    }
    ours, theirs = report.records(found)
    assert (ours["cpu_seconds"], theirs["cpu_seconds"], ours["wall_seconds"]) == (2, 5, 4)
    assert theirs["theirs_over_ours"] == 2.5 and ours["theirs_over_ours"] is None
    assert ours["efficiency"] == pytest.approx(0.6) and theirs["efficiency"] == pytest.approx(0.24)
    line = report.table([theirs], PEAK.facts["gemm"]).splitlines()[2]
    assert [cell.strip() for cell in line.split("|")[2:7]] == [TRANSFORMERS, "5", "10", "2.50", "24"]


def test_other_losses_are_other_work(tmp_path: Path) -> None:
    found = {
        Job("peak", OURS, "S"): PEAK,
        OURS_TRAIN: measured(1, first_loss=6.0),
        THEIRS_TRAIN: measured(1, first_loss=6.1),
    }
    with pytest.raises(report.DifferentWorkError, match=r"6\.1"):
        report.write(found, tmp_path)
    assert not list(tmp_path.iterdir())


def test_slopes_of_growth(tmp_path: Path) -> None:
    """Cost in proportion: 1; squared: 2."""
    points = [(n, dataclasses.replace(OURS_TRAIN, batch=n)) for n in (2, 4, 8)]
    found = {job: measured(float(n), work=float(n**2)) for n, job in points}
    slopes = growth.draw({"batch": points, "again": points}, found, tmp_path / "growth.png")
    assert slopes["batch"] == {"cpu": pytest.approx(1.0), "work": pytest.approx(2.0)}
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run fails at its second job, as if it were stopped; the rerun starts there."""
    done: list[str] = []
    fails = [THEIRS_TRAIN]

    def process(job: Job, directory: Path, out: Path, python: Path) -> Measured:
        if job in fails:
            raise run.BenchmarkError("stopped")
        done.append(job.measure)
        return measured(1.0)

    monkeypatch.setattr(run, "_process", process)
    (tmp_path / "models" / "S").mkdir(parents=True)
    (tmp_path / "models" / "S" / jobs.SAMPLES).touch()
    plan = [OURS_TRAIN, THEIRS_TRAIN]
    with pytest.raises(run.BenchmarkError):
        run.run(plan, tmp_path, {})
    fails.clear()
    assert list(run.run(plan, tmp_path, {})) == plan
    assert done == ["train", "train"]


def test_the_whole_on_a_toy(tmp_path: Path) -> None:
    """As a user starts it, generation alone: it compiles in seconds."""
    out = tmp_path / "out"
    line = [sys.executable, "-m", "launch.benchmark", "--sizes=toy", "--only=generate", "--repeats=2"]
    done = subprocess.run([*line, f"--out={out}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["who"]: row for row in json.loads((out / "bench.json").read_text())["rows"]}
    assert len(rows[OURS]["all_cpu_seconds"]) == 2
    assert 0 < rows[OURS]["efficiency"] < 1 and rows[OURS]["peak_bytes"] > 100e6
    assert "toy generate, 2 x 48 + 4" in (out / "bench.md").read_text()
    if TRANSFORMERS in rows:
        assert rows[TRANSFORMERS]["theirs_over_ours"] > 0


def test_a_grpo_step_of_ours_runs(tmp_path: Path) -> None:
    plan = [job for job in jobs.plan(["toy"], ["grpo"], 1, []) if job.measure == "grpo"]
    (found,) = run.run(plan, tmp_path, {}).values()
    assert found.work > 0 and found.facts["mean_length"] == plan[0].new_tokens
