"""The ablation: what it reports, on made-up figures, and one small ablation from phantoms to report, and again."""

import dataclasses
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from chestx_jax.data.chat import target
from chestx_jax.data.jsonl import read_samples
from chestx_jax.training.ablation import run
from chestx_jax.training.ablation.measure import Measured, measure
from chestx_jax.training.ablation.report import Arm, Run, scores_table, steps_to_half, write_report
from chestx_jax.training.ablation.run import arm_config, held_out
from chestx_jax.training.state import TrainingError
from configs.ablation import get_config

START = Measured(
    accuracy={"binary": 0.5, "mean": 0.5},
    radrscore={"factuality": 0.4, "completeness": 0.4, "effectiveness": 0.4, "score": 0.4},
    tokens=100.0,
    contradictory=0.0,
    idle=0.1,
    affirming=0.3,
    unfounded=0.2,
    margin=0.1,
    best_hack="ten normal statements",
)


def a_run(seed: int, rewards: list[float], binary: float) -> Run:
    rows = [
        {
            "step": i,
            "train/reward/process/mean": reward,
            "train/reward/outcome/mean": 0.5,
            "train/response/length_mean": 90.0,
        }
        for i, reward in enumerate(rewards, start=1)
    ]
    measured = dataclasses.replace(START, accuracy={"binary": binary, "mean": binary})
    return Run(seed, measured, [*rows, {"step": len(rows), "eval/accuracy": 0.5}])


ARMS = [
    Arm("slow", (a_run(0, [0.2] * 10 + [0.4] * 10, 0.5), a_run(1, [0.2] * 20, 0.7))),
    Arm("fast", (a_run(0, [0.2] * 5 + [0.6] * 15, 0.6), a_run(1, [0.2] * 7 + [0.6] * 13, 0.6))),
]


def test_the_table_gives_mean_and_standard_deviation_over_seeds() -> None:
    lines = [line.split("|") for line in scores_table(START, ARMS).splitlines()]
    assert [line[1].strip() for line in lines[2:]] == ["start (SFT)", "slow", "fast"]
    assert lines[0][3].strip() == "binary %"
    assert [line[3].strip() for line in lines[2:]] == ["50.0", "60.0 ± 14.1", "60.0 ± 0.000"]


def test_one_seed_has_no_spread() -> None:
    lines = scores_table(START, [Arm("slow", ARMS[0].runs[:1])]).splitlines()
    assert lines[-1].split("|")[3].strip() == "50.0"


def test_the_half_way_is_that_of_the_best_arm() -> None:
    """From 0.2 to 0.6: 0.4, a mean over five steps, first reached where at least half of them are at 0.6."""
    assert steps_to_half(ARMS) == {"slow": [15, None], "fast": [8, 10]}


def test_a_report_has_table_json_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(START, ARMS, 20, tmp_path)
    record = json.loads((tmp_path / "ablation.json").read_text())
    assert record["arms"]["slow"]["1"]["accuracy"]["binary"] == 0.7
    assert (tmp_path / "ablation.md").read_text().strip() in capsys.readouterr().out
    assert (tmp_path / "curves.png").stat().st_size > 5000 and (tmp_path / "scores.png").stat().st_size > 5000


def test_gold_reasoning_measures_as_such(bench: Path, tmp_path: Path) -> None:
    samples = read_samples(bench / "single/train.jsonl")[:12]
    rows = [{"id": s.id, "prediction": target(s, "reason"), "tokens": 50, "finished": True} for s in samples]
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    gold = measure(samples, path)
    assert gold.accuracy == {"single": 1.0, "mean": 1.0}
    assert gold.radrscore["score"] == pytest.approx(1.0)
    assert gold.contradictory == gold.unfounded == 0 and gold.margin >= 0 and gold.tokens == 50


def small(bench: Path) -> ConfigDict:
    """`tiny`, smaller than anybody would run it: one arm, one seed, two steps of everything."""
    config = get_config("tiny")
    for stage in (config.sft, config.judge, config.grpo):
        stage.data.update(bench=str(bench), image_size=56, limit=4, validation_limit=2)
        stage.data.train = (("binary/train.jsonl", "reason", 1.0),)
        stage.data.validation = (("single/validation.jsonl", "reason"),)
        stage.data.buckets = ((208, 16),)
        stage.mesh.update(fsdp=2, tensor=4)
        stage.update(steps=2, batch_size=2, save_every=2, eval_every=2)
    config.grpo.data.buckets = ((128, 16),)
    config.judge.data.update(validation=(("binary/train.jsonl", "reason"),), validation_limit=16)
    config.grpo.rollout.update(group_size=2, max_new_tokens=4, tensor=4)
    config.grpo.update(validation_batch=2, table_every=2)
    with config.unlocked():
        config.arms = ConfigDict(dict(learned=config.arms.learned))
    config.update(seeds=(0,), test=(("binary", 2),), max_new_tokens=4, test_batch=2)
    return config


def test_arms_differ_in_what_is_rewarded_and_in_nothing_else(bench: Path, tmp_path: Path) -> None:
    config = get_config("tiny")
    config.sft.data.bench = str(bench)
    made = {
        name: arm_config(config, name, 7, tmp_path / "sft", tmp_path / "judge").to_dict()
        for name in config.arms
    }
    told = {
        name: (
            one["rewards"]["process"]["weight"],
            one["rewards"].pop("learned", {}).get("function"),
            one["advantage"].pop("credit"),
        )
        for name, one in made.items()
    }
    assert told == {
        "outcome": (0.0, None, "scalar"),
        "scalar": (1.0, None, "scalar"),
        "step": (1.0, None, "step"),
        "learned": (0.0, f"learned:{tmp_path / 'judge'}", "step"),
    }
    for one in made.values():
        del one["rewards"]["process"]["weight"]
    assert all(one == made["outcome"] and one["seed"] == 7 for one in made.values())


def test_from_phantoms_to_report_and_again(bench: Path, tmp_path: Path) -> None:
    """The second time nothing is trained: every file but the report's is as it was."""
    config = small(bench)
    run(config, tmp_path)
    record = json.loads((tmp_path / "ablation.json").read_text())
    assert set(record["arms"]) == {"learned"} and set(record["start"]["accuracy"]) == {"binary", "mean"}
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert {path.parent.name for path in trained} == {"sft", "judge", "seed-0"}
    run(config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")} == trained


def test_a_task_without_questions_is_named(bench: Path, tmp_path: Path) -> None:
    config = small(bench)
    config.test = (("poetry", 2),)
    with pytest.raises(TrainingError, match=r"config\.test names 'poetry'"):
        held_out(config, bench, tmp_path / "test.jsonl")
