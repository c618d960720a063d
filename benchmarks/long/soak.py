"""Whether a run survives being killed: SIGKILL at random moments, again and again, on a tiny fine-tuning.

    python -m benchmarks.long.soak [--kills=100] [--seed=0] [--workdir=DIR] [--minutes=N] [--json=FILE]

A run of `STEPS` updates is killed until it has ended all the same, then the next one begins, until there were so many
kills. Half of the moments are drawn evenly over the time that a life takes (starting, training, evaluating, saving),
half of them while a checkpoint is being written. Every run must end with the parameters and the losses of one that
nobody killed, bit for bit, with every step in metrics.jsonl once; and no kill may cost more than `SAVE_EVERY` updates,
or, while a save is under way, that and the updates made beside it. About 15 minutes on a core; ends with an error when
something is not so. Lives are forked from one process that has imported everything, so that most of a life is work.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from configs.sft import get_config

STEPS, SAVE_EVERY, EVAL_EVERY = 60, 10, 30
POLL = 0.001  # seconds

_KILLS = flags.DEFINE_integer("kills", 100, "How many.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where to train; a temporary directory by default.")
_MINUTES = flags.DEFINE_float("minutes", float("inf"), "After which nothing more is killed.")
_JSON = flags.DEFINE_string("json", None, "Where to write the figures.")


def recipe(bench: Path) -> ConfigDict:
    """`tiny` with steps of a few dozen milliseconds."""
    config = get_config("tiny")
    config.data.update(
        bench=str(bench),
        image_size=56,
        train=(("binary/train.jsonl", "reason", 1.0),),
        validation=(("single/validation.jsonl", "reason"),),
        validation_limit=2,
        buckets=((192, 16),),
        limit=32,
    )
    config.update(batch_size=2, loss_chunk=64, steps=STEPS, save_every=SAVE_EVERY, eval_every=EVAL_EVERY)
    return config


def fork(work: Callable[[], Any], log: Path) -> int:
    """The process id of a child that does `work`; it exits with 0 when that returns."""
    child = os.fork()
    if child:
        return child
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def finish(child: int, log: Path) -> None:
    """Wait for a child that must succeed."""
    if os.waitpid(child, 0)[1]:
        sys.exit(f"a life that nobody killed failed:\n{log.read_text()[-4000:]}")


def train(bench: Path, workdir: Path, cache: Path) -> None:
    """One life; in a child, since JAX must not have started before a fork."""
    import jax

    from chestx_jax.training import sft

    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    sft.run(recipe(bench), workdir)


def digest(workdir: Path, out: Path) -> None:
    """Write a hash of the final parameters; in a child."""
    import numpy as np

    from chestx_jax.weights import load_pretrained
    from chestx_jax.weights.pretrained import flat_params

    found = hashlib.sha256()
    for path, value in sorted(flat_params(load_pretrained(workdir)).items()):
        found.update(path.encode() + np.asarray(value).tobytes())
    out.write_text(found.hexdigest())


def outcome(workdir: Path, log: Path) -> tuple[str, list[tuple[int, float]]]:
    """What a finished run came to: the hash of its parameters, and (step, loss) of every row."""
    from chestx_jax.training.metrics import read_rows

    out = workdir / "digest"
    finish(fork(lambda: digest(workdir, out), log), log)
    rows = read_rows(workdir)
    return out.read_text(), [(r["step"], r.get("train/loss", r.get("eval/loss"))) for r in rows]


def last_step(workdir: Path) -> int:
    """The newest step in metrics.jsonl, however the file ends."""
    from chestx_jax.training.metrics import read_rows

    return max((row["step"] for row in read_rows(workdir)), default=0)


def saving(workdir: Path) -> bool:
    """Whether a checkpoint is being written now, or waits for its checksums."""
    try:
        names = os.listdir(workdir / "checkpoints")
    except FileNotFoundError:
        return False
    return any(
        "orbax-checkpoint-tmp" in name
        or (name.isdecimal() and not (workdir / "checkpoints" / name / "files.json").exists())
        for name in names
    )


def kill_once(child: int, workdir: Path, moment: float, at_save: bool) -> bool:
    """Kill `child` after `moment` seconds, or in the first save after them; False when it ended before."""
    until = time.monotonic() + moment
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() >= until and (not at_save or saving(workdir)):
            os.kill(child, signal.SIGKILL)
            return os.WIFSIGNALED(os.waitpid(child, 0)[1])
        time.sleep(POLL)
    return False


def main(argv: list[str]) -> None:
    """See the module's docstring."""
    import transformers.models.auto.tokenization_auto  # noqa: F401  (imported once, before the forks)

    import chestx_jax.training.sft  # noqa: F401
    from chestx_jax.data.embedded import build_small_bench
    from chestx_jax.weights.step_directories import finished_steps

    absl_logging.set_verbosity(absl_logging.WARNING)
    began, draw = time.monotonic(), random.Random(_SEED.value)
    root = Path(_WORKDIR.value or tempfile.mkdtemp(prefix="soak"))
    root.mkdir(parents=True, exist_ok=True)
    bench, cache, log = root / "bench", root / "compiled", root / "lives.log"
    child = fork(lambda: build_small_bench(bench, source="phantom", root=None, studies=40, seed=0), log)
    finish(child, log)
    for name in ("first", "unbroken"):  # the first one compiles
        shutil.rmtree(root / name, ignore_errors=True)
        started = time.monotonic()
        finish(fork(lambda: train(bench, root / name, cache), log), log)  # noqa: B023
    life = time.monotonic() - started
    expected = outcome(root / "unbroken", log)

    run = root / "run"
    shutil.rmtree(run, ignore_errors=True)
    kills: list[dict[str, Any]] = []
    lives = runs = 0
    wrong: list[str] = []

    def killing() -> bool:
        return len(kills) < _KILLS.value and time.monotonic() - began < 60 * _MINUTES.value

    while killing() or run.exists():
        lives += 1
        resumed = max(finished_steps(run / "checkpoints"), default=0)
        child = fork(lambda: train(bench, run, cache), log)
        hunted = killing()
        if hunted and kill_once(child, run, draw.uniform(0, life), draw.random() < 0.5):
            kept = max(finished_steps(run / "checkpoints"), default=0)
            reached = max(last_step(run), kept)
            phase = "saving" if saving(run) else "training" if reached > resumed else "starting"
            print(f"kill {len(kills) + 1}, {phase}: at step {reached}, {kept} is kept", flush=True)
            kills.append({"phase": phase, "reached": reached, "kept": kept, "lost": reached - kept})
            limit = SAVE_EVERY * (2 if phase == "saving" else 1)
            if reached - kept > limit or kept < resumed:
                wrong.append(f"kill {len(kills)} ({phase}): at step {reached}, {kept} was kept")
            continue
        if not hunted:
            finish(child, log)
        if max(finished_steps(run / "checkpoints"), default=0) < STEPS:
            sys.exit(f"a life ended before its run did:\n{log.read_text()[-4000:]}")
        runs += 1
        if outcome(run, log) != expected:
            wrong.append(f"run {runs}: not what the unbroken run came to")
        shutil.rmtree(run)

    report = {
        "kills": len(kills),
        "phases": dict(Counter(kill["phase"] for kill in kills)),
        "runs": runs,
        "lives": lives,
        "most_updates_lost": max(kill["lost"] for kill in kills),
        "save_every": SAVE_EVERY,
        "life_seconds": round(life, 1),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "wrong": wrong,
    }
    print(
        f"{report['kills']} kills ({report['phases']}) in {lives} lives of {runs} runs, {report['minutes']} minutes: "
        f"at most {report['most_updates_lost']} updates lost (saves every {SAVE_EVERY}); "
        + ("all ended as the unbroken run, bit for bit" if not wrong else "; ".join(wrong))
    )
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps({**report, "each": kills}, indent=2) + "\n")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
