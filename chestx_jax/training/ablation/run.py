"""The stages of an ablation, each skipped when it is done and resumed when it is not."""

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import jax
from ml_collections import ConfigDict

from chestx_jax.data import read_samples, write_samples
from chestx_jax.storage import to_path
from chestx_jax.training import process_reward, sft
from chestx_jax.training.ablation.measure import Measured, answer, measure
from chestx_jax.training.ablation.report import Arm, Run, write_report
from chestx_jax.training.grpo.run import run as run_grpo
from chestx_jax.training.grpo.settings import check
from chestx_jax.training.metrics import read_rows
from chestx_jax.training.state import TrainingError
from chestx_jax.weights.step_directories import CHECKPOINTS, finished_steps

log = logging.getLogger(__name__)

START = "sft"
"""The row of the model that every arm starts from."""


def run(config: ConfigDict, workdir: Path) -> None:
    """Fine-tune, train the judge, run every arm with every seed, answer held-out questions, write the report.

    Under `workdir`: sft/, judge/, runs/<arm>/seed-<n>/ (each with its curves and completions), test.jsonl,
    predictions/, and ablation.json, ablation.md, curves.png, scores.png.

    Raises:
      TrainingError: an arm that rewards nothing, a test file that is not there.
      What the stages raise; Preempted after SIGTERM. The same line goes on.
    """
    runs = [(name, seed) for name in config.arms for seed in config.seeds]
    start = to_path(config.sft_run) if config.sft_run else workdir / START
    for name, seed in runs:
        if not config.arms[name].learned:  # its judge is not there yet
            check(arm_config(config, name, seed, start, workdir / "judge"))
    if not config.sft_run and not is_finished(start, config.sft.steps):
        sft.run(config.sft, start)
    bench = bench_of(config, start)
    judge = workdir / "judge"
    if _needs_judge(config) and not (judge / process_reward.SCORES).is_file():
        process_reward.run(_on(config.judge, start, bench), judge)
    for i, (name, seed) in enumerate(runs, start=1):
        log.info("run %d of %d: %s, seed %d", i, len(runs), name, seed)
        directory = run_directory(workdir, name, seed)
        if not is_finished(directory, config.grpo.steps):
            run_grpo(arm_config(config, name, seed, start, judge), directory)
            jax.clear_caches()  # every run compiles programs of its own
    test = held_out(config, bench, workdir / "test.jsonl")
    base = _measured(config, start, test, workdir / "predictions" / START)
    arms = [
        Arm(
            name,
            tuple(
                Run(
                    seed,
                    _measured(
                        config,
                        run_directory(workdir, name, seed),
                        test,
                        workdir / f"predictions/{name}-{seed}",
                    ),
                    read_rows(run_directory(workdir, name, seed)),
                )
                for seed in config.seeds
            ),
        )
        for name in config.arms
    ]
    write_report(base, arms, config.grpo.steps, workdir)


def run_directory(workdir: Path, arm: str, seed: int) -> Path:
    """Where an arm's run with one seed is."""
    return workdir / "runs" / arm / f"seed-{seed}"


def is_finished(directory: Path, steps: int) -> bool:
    """Whether a run's last checkpoint is there."""
    return steps in finished_steps(directory / CHECKPOINTS)


def bench_of(config: ConfigDict, start: Path) -> Path:
    """The benchmark that the model was fine-tuned on, and that everything else here is about."""
    return to_path(config.sft.data.bench) if config.sft.data.bench else start / "bench"


def arm_config(config: ConfigDict, name: str, seed: int, start: Path, judge: Path) -> ConfigDict:
    """The GRPO config of one arm with one seed."""
    arm = config.arms[name]
    changed = _on(config.grpo, start, bench_of(config, start))
    changed.seed = seed
    changed.advantage.credit = arm.credit
    changed.rewards.process.weight = arm.process
    if arm.learned:
        learned = dict(function=f"learned:{judge}", weight=arm.learned, clip=(-1.0, 1.0), schedule=())
        with changed.unlocked():
            changed.rewards.learned = ConfigDict(learned)
    return changed


def held_out(config: ConfigDict, bench: Path, out: Path) -> Path:
    """The questions that every model answers, as one file.

    Raises:
      TrainingError: the bench has no test file of a task.
    """

    def first() -> Iterator:
        for task, count in config.test:
            path = bench / task / "test.jsonl"
            if not path.is_file():
                raise TrainingError(f"config.test names {task!r}, but {path} is not there")
            yield from read_samples(path)[:count]

    write_samples(out, list(first()))
    return out


def _needs_judge(config: ConfigDict) -> bool:
    return any(arm.learned for arm in config.arms.values())


def _on(recipe: ConfigDict, start: Path, bench: Path) -> ConfigDict:
    changed = recipe.copy_and_resolve_references()
    changed.model.pretrained = str(start)
    changed.data.bench = str(bench)
    return changed


def _measured(config: ConfigDict, directory: Path, test: Path, out: Path) -> Measured:
    predictions = out.with_name(out.name + ".jsonl")
    answer(directory, test, predictions, max_new_tokens=config.max_new_tokens, batch_size=config.test_batch)
    jax.clear_caches()
    measured = measure(read_samples(test), predictions)
    out.with_name(out.name + ".json").write_text(json.dumps(dataclasses.asdict(measured), indent=2) + "\n")
    return measured
