"""Where a run stands, from the files in its directory alone."""

import json
import time
from pathlib import Path
from typing import Any

from etils import epath

from chestx_jax.training.lock import holder
from chestx_jax.training.metrics import Row, clock, read_rows
from chestx_jax.training.state import TrainingError
from chestx_jax.training.workdir import DONE, read_lives
from chestx_jax.weights.step_directories import CHECKPOINTS, METADATA, finished_steps, read_metadata


def status(workdir: Path) -> list[str]:
    """What to print about the run in `workdir`, line by line.

    Raises:
      TrainingError: there is no run.
    """
    if not (workdir / "config.json").exists():
        raise TrainingError(f"{workdir} holds no run: there is no config.json")
    config = json.loads((workdir / "config.json").read_text())
    rows, lives, running = read_rows(workdir), read_lives(workdir), holder(workdir)
    trained = [row for row in rows if "perf/goodput" in row]
    evaluated = [row for row in rows if any(name.startswith("eval/") for name in row)]
    step = rows[-1]["step"] if rows else 0
    return [
        f"step {step} of {config['steps']}",
        _state(running, lives),
        *(_metrics("train", trained[-1]) if trained else []),
        *(_metrics("eval", evaluated[-1]) if evaluated else []),
        _checkpoint(workdir, config["keep_best"]),
        *(_lives(lives, trained) if trained else []),
    ]


def _state(running: dict[str, Any] | None, lives: list[dict[str, Any]]) -> str:
    if running:
        return f"running: process {running['pid']} on {running['host']}"
    if not lives:
        return "never started"
    ended = lives[-1].get("ended")
    if ended == DONE:
        return "done"
    why = ended or "it was killed (no end was noted)"
    return f"stopped: {why}\n  to resume: {' '.join(lives[-1]['command'])}"


def _metrics(kind: str, row: Row) -> list[str]:
    told = [f"{name}={value:.4g}" for name, value in row.items() if name.startswith((f"{kind}/", "perf/"))]
    return [f"last {kind} row, step {row['step']}: {'  '.join(told)}"]


def _checkpoint(workdir: Path, keep_best: dict[str, str]) -> str:
    root = workdir / CHECKPOINTS
    steps = finished_steps(root)
    if not steps:
        return "no checkpoint yet"
    age = time.time() - epath.Path(root / str(steps[-1]) / METADATA).stat().mtime
    when = f"{clock(age)} ago" if age >= 0 else "in the future: a clock was set back"
    told = f"last checkpoint: {root / str(steps[-1])}, {when}; all: {', '.join(map(str, steps))}"
    name = f"{keep_best['direction']} {keep_best['metric']}"
    scores = {step: read_metadata(root / str(step)).get("scores", {}).get(name) for step in steps}
    known = {step: score for step, score in scores.items() if score is not None}
    return f"{told}; best ({name}): {min(known, key=known.__getitem__)}" if known else told


def _lives(lives: list[dict[str, Any]], trained: list[Row]) -> list[str]:
    """Rows that a resumed run dropped are not here, so their seconds were not good for anything."""
    good = sum(row.get("perf/seconds/step", 0.0) for row in trained)
    waited = sum(row.get("perf/seconds/data_wait", 0.0) for row in trained)
    told = f"{len(lives)} lives; {clock(good)} in steps that were kept, {clock(waited)} of waiting for data"
    if all("seconds" in life for life in lives):
        told += f"; goodput {good / sum(life['seconds'] for life in lives):.0%}"
    return [told]
