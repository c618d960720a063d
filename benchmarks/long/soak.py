"""Whether a run survives being killed: SIGKILL at random moments, again and again, on a tiny fine-tuning.

    python -m benchmarks.long.soak [--kills=100] [--seed=0] [--workdir=DIR] [--minutes=N] [--json=FILE]

A run of `STEPS` updates is killed until it has ended all the same, then the next one begins, until there were so many
kills. Half of the moments are drawn evenly over the time that a life takes (starting, training, evaluating, saving),
half of them while the first, second, .. checkpoint of that life is being written. Every run must end with the
parameters and the losses of one that nobody killed, bit for bit, with every step in metrics.jsonl once; and no kill
may cost more than `SAVE_EVERY` updates, or, while a save is under way, that and the updates made beside it. About 15
minutes on a core; ends with an error when something is not so. Lives are forked from one process that has imported
everything, so that most of a life is work.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from configs.sft import get_config

STEPS, SAVE_EVERY, EVAL_EVERY = 60, 10, 30
POLL = 0.001  # seconds
Outcome = tuple[str, list[tuple[int, float]]]

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


def outcome(workdir: Path, log: Path) -> Outcome:
    """What a finished run came to: the hash of its parameters, and (step, loss) of every row."""
    from chestx_jax.training.metrics import read_rows

    out = workdir / "digest"
    finish(fork(lambda: digest(workdir, out), log), log)
    rows = read_rows(workdir)
    return out.read_text(), [
        (r["step"], r["train/loss"] if "train/loss" in r else r["eval/loss"]) for r in rows
    ]


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


def kill_once(child: int, workdir: Path, moment: float, save: int) -> bool:
    """Kill `child` in save number `save` (from 1) of its life, or with 0 after `moment` seconds; False when it ended
    before."""
    until, saves, busy = time.monotonic() + moment, 0, saving(workdir)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        was, busy = busy, saving(workdir)
        saves += busy and not was
        if saves == save if save else time.monotonic() >= until:
            os.kill(child, signal.SIGKILL)
            return os.WIFSIGNALED(os.waitpid(child, 0)[1])
        time.sleep(POLL)
    return False


@dataclass(frozen=True)
class Soak:
    """What all lives share, and what a run that nobody killed came to, in `seconds`."""

    root: Path
    bench: Path
    cache: Path
    log: Path
    seconds: float = 0.0
    expected: Outcome | None = None

    def life(self, workdir: Path) -> int:
        """The process id of a life in `workdir`."""
        return fork(lambda: train(self.bench, workdir, self.cache), self.log)

    def undisturbed(self, workdir: Path) -> float:
        """The seconds of a run that nobody kills."""
        shutil.rmtree(workdir, ignore_errors=True)
        began = time.monotonic()
        finish(self.life(workdir), self.log)
        return time.monotonic() - began


def prepare(root: Path) -> Soak:
    """Builds the bench, compiles, and has one run that nobody kills."""
    from chestx_jax.data.embedded import build_small_bench

    root.mkdir(parents=True, exist_ok=True)
    soak = Soak(root, root / "bench", root / "compiled", root / "lives.log")
    builder = fork(
        lambda: build_small_bench(soak.bench, source="phantom", root=None, studies=40, seed=0), soak.log
    )
    finish(builder, soak.log)
    soak.undisturbed(root / "first")  # it compiles
    seconds = soak.undisturbed(root / "unbroken")
    return replace(soak, seconds=seconds, expected=outcome(root / "unbroken", soak.log))


def last_kept(workdir: Path) -> int:
    """The newest checkpoint's step, or 0."""
    from chestx_jax.weights.step_directories import finished_steps

    return max(finished_steps(workdir / "checkpoints"), default=0)


def hunt(soak: Soak, workdir: Path, draw: random.Random) -> dict[str, Any] | None:
    """One life that is to be killed: what was reached and what was lost; None when its run ended before."""
    resumed = last_kept(workdir)
    save = draw.randint(1, STEPS // SAVE_EVERY) if draw.random() < 0.5 else 0
    if not kill_once(soak.life(workdir), workdir, draw.uniform(0, soak.seconds), save):
        return None
    kept = last_kept(workdir)
    reached = max(last_step(workdir), kept)
    phase = "saving" if saving(workdir) else "training" if reached > resumed else "starting"
    return {"phase": phase, "resumed": resumed, "reached": reached, "kept": kept, "lost": reached - kept}


def complaint(kill: dict[str, Any]) -> str:
    """What a kill cost that it must not cost; "" when all is well."""
    limit = SAVE_EVERY * (2 if kill["phase"] == "saving" else 1)
    if kill["lost"] <= limit and kill["kept"] >= kill["resumed"]:
        return ""
    return f"killed while {kill['phase']} at step {kill['reached']}, {kill['kept']} was kept"


def main(argv: list[str]) -> None:
    """See the module's docstring."""
    import transformers.models.auto.tokenization_auto  # noqa: F401  (imported once, before the forks)

    import chestx_jax.training.sft  # noqa: F401

    absl_logging.set_verbosity(absl_logging.WARNING)
    began, draw = time.monotonic(), random.Random(_SEED.value)
    soak = prepare(Path(_WORKDIR.value or tempfile.mkdtemp(prefix="soak")))
    workdir, kills, runs, lives = soak.root / "run", list[dict[str, Any]](), 0, 0
    wrong: list[str] = []
    shutil.rmtree(workdir, ignore_errors=True)
    while workdir.exists() or (len(kills) < _KILLS.value and _time_is_left(began)):
        lives += 1
        if len(kills) < _KILLS.value and _time_is_left(began):
            if kill := hunt(soak, workdir, draw):
                kills.append(kill)
                wrong += [complaint(kill)] if complaint(kill) else []
                print(f"kill {len(kills)}: {kill}", flush=True)
                continue
        else:
            finish(soak.life(workdir), soak.log)
        if last_kept(workdir) < STEPS:
            sys.exit(f"a life ended before its run did:\n{soak.log.read_text()[-4000:]}")
        runs += 1
        if outcome(workdir, soak.log) != soak.expected:
            wrong.append(f"run {runs}: not what the unbroken run came to")
        shutil.rmtree(workdir)
    report(kills, runs, lives, soak.seconds, (time.monotonic() - began) / 60, wrong)


def _time_is_left(began: float) -> bool:
    return time.monotonic() - began < 60 * _MINUTES.value


def report(
    kills: list[dict[str, Any]], runs: int, lives: int, seconds: float, minutes: float, wrong: list[str]
) -> None:
    """Prints and writes what was found; ends the program with an error when something is wrong."""
    phases, lost = dict(Counter(kill["phase"] for kill in kills)), max(kill["lost"] for kill in kills)
    resumed = sum(kill["resumed"] > 0 for kill in kills)
    print(
        f"{len(kills)} kills ({phases}), {resumed} of them of resumed lives, in {lives} lives of {runs} runs, "
        f"{minutes:.1f} minutes: at most {lost} updates lost (saves every {SAVE_EVERY}); "
        + ("all ended as the unbroken run, bit for bit" if not wrong else "; ".join(wrong))
    )
    if _JSON.value:
        figures = {
            "kills": len(kills),
            "phases": phases,
            "resumed": resumed,
            "runs": runs,
            "lives": lives,
            "most_updates_lost": lost,
            "save_every": SAVE_EVERY,
            "life_seconds": round(seconds, 1),
            "minutes": round(minutes, 1),
            "wrong": wrong,
            "each": kills,
        }
        Path(_JSON.value).write_text(json.dumps(figures, indent=2) + "\n")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
