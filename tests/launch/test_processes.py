"""Programs as several processes on this machine, as they would run on the hosts of a pod."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import pytest

from chestx_jax.data.embedded import build_small_bench
from tests.launch import programs
from tests.launch.programs import ROOT
from tests.processes import finish, free_port

pytestmark = pytest.mark.processes  # `make processes`: it starts a dozen programs

QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # to compile
LOST_AFTER = 20  # seconds; two cores may be busy with something else


def start(program: str, *flags: str) -> subprocess.Popen[str]:
    return programs.start(program, *flags, xla_flags=QUICK)


def start_several(program: str, flags: list[str], count: int) -> list[subprocess.Popen[str]]:
    cluster = [
        f"--coordinator=127.0.0.1:{free_port()}",
        f"--process_count={count}",
        f"--lost_after={LOST_AFTER}",
    ]
    return [start(program, *flags, *cluster, f"--process_id={index}") for index in range(count)]


def run(program: str, flags: list[str], count: int) -> list[str]:
    """The output of each of `count` processes, which all end well; 1 is the program by itself."""
    ended = finish(start_several(program, flags, count) if count > 1 else [start(program, *flags)])
    assert [code for code, _ in ended] == [0] * count, "\n".join(output for _, output in ended)
    return [output for _, output in ended]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "bench"
    build_small_bench(out, source="phantom", root=None, studies=24, seed=0)
    return out


def flags_of(kind: str, workdir: Path, config: dict[str, object]) -> list[str]:
    changes = [f"--config.{name}={value}" for name, value in config.items()]
    return [f"--config={ROOT}/configs/{kind}.py:tiny", f"--workdir={workdir}", *changes]


def on(bench: Path) -> dict[str, object]:
    """What both recipes train and are validated on."""
    return {
        "model.freeze": "^vision",
        "data.bench": bench,
        "data.image_size": 56,
        "data.train": "(('binary/train.jsonl','reason',1.0),)",
        "data.validation": "(('binary/train.jsonl','reason'),)",
        "data.validation_limit": 5,
    }


def sft(bench: Path, workdir: Path, **changes: object) -> list[str]:
    config: dict[str, object] = {
        **on(bench),
        "data.buckets": "((208,16),)",
        "batch_size": 8,
        "steps": 12,
        "save_every": 2,
        "eval_every": 6,
        "optimizer.peak": 5e-4,  # at the recipe's rate, differences in last bits grow beyond 1e-5 within six steps
        **changes,
    }
    return flags_of("sft", workdir, config)


def grpo(bench: Path, workdir: Path, pretrained: Path | None = None, **changes: object) -> list[str]:
    config: dict[str, object] = {
        **({} if pretrained is None else {"model.pretrained": pretrained}),
        **on(bench),
        "data.buckets": "((160,16),)",
        "rollout.group_size": 4,
        "rollout.max_new_tokens": 24,
        "advantage.estimator": "gdpo",
        "batch_size": 4,
        "validation_batch": 4,
        "steps": 2,
        "save_every": 2,
        "eval_every": 2,
        "table_every": 2,
        "optimizer.peak": 1e-3,
        **changes,
    }
    return flags_of("grpo", workdir, config)


def rows(workdir: Path) -> dict[tuple[int, str], float]:
    """(step, name) -> value of metrics.jsonl; every one is there once."""
    found: dict[tuple[int, str], float] = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            assert (row["step"], name) not in found or name == "step"
            found[row["step"], name] = value
    return found


def assert_same_numbers(workdir: Path, reference: Path, besides: str) -> None:
    """Every metric of both runs but those that match `besides`, within 1e-5."""
    ours, theirs = (
        {key: value for key, value in rows(one).items() if not re.search(besides, key[1])}
        for one in (workdir, reference)
    )
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


TIMINGS = "^perf/|seconds"


@pytest.fixture(scope="module")
def alone(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("alone") / "sft"
    run("sft", sft(bench, workdir), 1)
    return workdir


@pytest.fixture(scope="module")
def two(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes; the second is killed once there is a checkpoint, and the same lines are run again."""
    workdir = tmp_path_factory.mktemp("two") / "sft"
    processes = start_several("sft", sft(bench, workdir), 2)
    deadline = time.monotonic() + 400
    while not list((workdir / "checkpoints").glob("*/files.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    (code, output), _ = finish(processes)
    assert code == 75, output
    assert "process 1 of this run is lost" in output and "start all processes again to resume" in output
    assert time.monotonic() - killed < 3 * LOST_AFTER
    first, second = run("sft", sft(bench, workdir), 2)
    assert "resuming after step" in first
    assert "resuming" not in second and "validation loss" not in second  # the first process speaks for all
    return workdir


def test_two_processes_train_as_one_and_resume_when_one_was_killed(alone: Path, two: Path) -> None:
    assert_same_numbers(two, alone, besides=TIMINGS)


def test_four_processes_go_on_with_what_two_began(bench: Path, alone: Path, two: Path) -> None:
    """Also where a process has nothing but filling in a batch of validation."""
    for workdir, count in ((alone, 1), (two, 4)):
        run("sft", sft(bench, workdir, steps=14), count)
    assert_same_numbers(two, alone, besides=TIMINGS)


def test_two_processes_reinforce_as_one(bench: Path, alone: Path, tmp_path: Path) -> None:
    """Rollouts, rewards, advantages over the whole batch, and validation."""
    for name, count in (("one", 1), ("two", 2)):
        run("grpo", grpo(bench, tmp_path / name, alone), count)
    assert_same_numbers(tmp_path / "two", tmp_path / "one", besides=TIMINGS)
    assert list((tmp_path / "two" / "completions").glob("*.html"))


def spread_of_some(
    prompts: object, completions: Sequence[str], *, id: Sequence[str], **_: object
) -> list[float]:
    """A reward that differs within the groups of about a third of the samples, and within no other group."""
    return [
        crc32(text.encode()) % 97 / 97 if crc32(name.encode()) % 3 == 0 else 0.0
        for text, name in zip(completions, id, strict=True)
    ]


def test_two_processes_replace_the_groups_that_one_does(bench: Path, tmp_path: Path) -> None:
    """Groups without spread, of which one process drew more than the other; several updates a rollout, so that it
    matters which prompts come together, and log-probabilities of old weights go with their prompts."""
    changes = {
        "model.arch": "tiny",
        "rewards.format.function": "tests.launch.test_processes.spread_of_some",
        "rewards.outcome.weight": 0.0,
        "rewards.process.weight": 0.0,
        "rollout.refills": 2,
        "minibatches": 2,
    }
    for name, count in (("one", 1), ("two", 2)):
        run("grpo", grpo(bench, tmp_path / name, **changes), count)
    assert_same_numbers(tmp_path / "two", tmp_path / "one", besides=TIMINGS)
    steps = rows(tmp_path / "one")
    assert max(steps[step, "train/prompts_drawn"] for step in (1, 2)) > 4
    assert min(steps[step, "train/zero_spread_share"] for step in (1, 2)) < 1


def judge(bench: Path, workdir: Path) -> list[str]:
    config: dict[str, object] = {
        **on(bench),
        "data.buckets": "((224,16),)",
        "model.arch": "tiny",
        "model.freeze": "",
        "batch_size": 8,
        "steps": 2,
        "save_every": 2,
        "eval_every": 9,
    }
    return flags_of("process_reward", workdir, config)


def test_two_processes_train_a_reward_model_as_one_and_pick_what_it_says(
    bench: Path, alone: Path, tmp_path: Path
) -> None:
    """Its training, and `launch.predict` with it: five samples by four, so that one process ends with filling."""
    for name, count in (("one", 1), ("two", 2)):
        run("process_reward", judge(bench, tmp_path / name), count)
    assert_same_numbers(tmp_path / "two", tmp_path / "one", besides=TIMINGS)
    data = tmp_path / "five.jsonl"
    lines = (bench / "binary" / "train.jsonl").read_text().splitlines()[:5]
    samples = [json.loads(line) for line in lines]
    for sample in samples:
        sample["images"] = [str(bench / "binary" / image) for image in sample["images"]]
    data.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    found = []
    for name, count in (("one", 1), ("two", 2)):
        out = tmp_path / f"{name}.jsonl"
        flags = [f"--model={alone}", f"--process_reward={tmp_path / 'one'}", f"--data={data}"]
        flags += [f"--out={out}", "--batch_size=4", "--best_of=2", "--temperature=1", "--max_new_tokens=8"]
        run("predict", [*flags, "--image_size=56"], count)
        found.append({row["id"]: row for row in map(json.loads, out.read_text().splitlines())})
    assert found[0].keys() == found[1].keys() == {sample["id"] for sample in samples}
    for name, row in found[0].items():
        assert row["prediction"] == found[1][name]["prediction"]
        assert row["reward"] == pytest.approx(found[1][name]["reward"], abs=1e-5)


def test_processes_ask_a_reward_model_together(bench: Path, tmp_path: Path) -> None:
    """Also where one has no completions in a batch of validation. What it says of steps: tests/rewards; random weights
    write none."""
    run("process_reward", judge(bench, tmp_path / "judge"), 1)
    changes = {
        "model.arch": "tiny",
        "rewards.format.function": "tests.launch.test_processes.spread_of_some",
        "rewards.process.function": f"learned:{tmp_path / 'judge'}",
    }
    for name, count in (("one", 1), ("two", 2)):
        run("grpo", grpo(bench, tmp_path / name, **changes), count)
    assert_same_numbers(tmp_path / "two", tmp_path / "one", besides=TIMINGS)


def test_a_process_with_another_config_is_named(bench: Path, tmp_path: Path) -> None:
    flags = sft(bench, tmp_path / "run")
    cluster = [f"--coordinator=127.0.0.1:{free_port()}", "--process_count=2", f"--lost_after={LOST_AFTER}"]
    ended = finish(
        [
            start("sft", *flags, *cluster, "--process_id=0"),
            start("sft", *flags, *cluster, "--process_id=1", "--config.optimizer.peak=0.5"),
        ]
    )
    for code, output in ended:
        assert code == 1 and "Traceback" not in output, output
        assert "process 1 has config.optimizer.peak 0.5, process 0 has 0.0005" in output
    assert not (tmp_path / "run").exists()


def test_a_process_that_does_not_come_is_missed(bench: Path, tmp_path: Path) -> None:
    flags = [*sft(bench, tmp_path / "run"), "--process_count=2", "--process_id=0", "--start_within=5"]
    ((code, output),) = finish([start("sft", *flags, f"--coordinator=127.0.0.1:{free_port()}")])
    assert code != 0 and "did not find each other" in output and "within 5 s" in output, output
