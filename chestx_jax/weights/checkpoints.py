"""Training checkpoints with Orbax.

Layout of a run's directory:

    workdir/model/               config.json, tokenizer, processor and generation files; adapter.json for LoRA
    workdir/checkpoints/<step>/  params (an Orbax tree), train (the rest of the state: optimizer, step),
                                 data_state, meta and scores as JSON in _CHECKPOINT_METADATA, and the
                                 checksums of all files in files.json (`step_directories`)

`params` holds every parameter, frozen ones and adapters too, so one step directory and `model` are the whole
model: `load_pretrained` takes a workdir (newest step), its `checkpoints`, or one step directory.
Directories of saves that never finished are ignored.
"""

import functools
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from chestx_jax.parallel import by_first, gather, is_first
from chestx_jax.storage import absolute
from chestx_jax.weights.model_files import differences
from chestx_jax.weights.step_directories import (
    CHECKPOINTS,
    PARAMS,
    CheckpointError,
    damage,
    finished_steps,
    read_metadata,
    set_aside,
    set_unfinished_aside,
    write_manifest,
)
from chestx_jax.weights.stored_arrays import TRAIN, PyTree, check_arrays, parts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """What `Checkpoints.restore` returns: the state on its devices, and the two dictionaries saved with
    it."""

    state: dict[str, PyTree]
    data_state: dict[str, Any]
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, for the program that writes them; to read one, `load_pretrained` is enough.

    Every process of a multi-host run calls every method. Directories of saves that never finished are moved
    out of the way (9 becomes unfinished-9), and what Orbax was still writing is removed.

    Args:
      workdir: the run's directory; checkpoints lie in its `checkpoints`.
      keep: how many of the newest to keep.
      best: name of a score; the checkpoint with the smallest is kept too. "" for none.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int, best: str = "") -> None:
        self.directory = absolute(workdir) / CHECKPOINTS
        by_first(lambda: set_unfinished_aside(self.directory))
        saved = {step: read_metadata(self.directory / str(step)) for step in self.steps()}
        self._preserve = _Preserve(keep, {})
        self._best = best
        for step, metadata in saved.items():
            self._note_score(step, metadata.get("scores", {}))
        self._saved = set(saved)
        self._pending: Future[None] | None = None

    @functools.cached_property
    def _checkpointer(self) -> Any:
        """Made by the first save: it starts background threads, which a program that stops before has no use
        for and would leave in the middle of their work."""
        return ocp.training.Checkpointer(self.directory, preservation_policy=self._preserve)

    @functools.cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="checkpoint")

    def save(
        self,
        step: int,
        state: Mapping[str, PyTree],
        data_state: Mapping[str, Any],
        meta: Mapping[str, Any],
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Start writing a checkpoint; returns when the arrays are copied off the devices, so they may be
        donated. Checksums follow in the background, once the checkpoint is whole.

        Args:
          step: number of finished updates.
          state: {"params": all parameters, nested; anything else, e.g. "opt_state", "step"}: pytrees of
            arrays.
          data_state: of the data iterator, JSON; the same on every process.
          meta: what tells this run from another, JSON; the same on every process.
          scores: how good the state is, by name, the smaller the better; the same on every process.

        Raises:
          CheckpointError: when the step is there already, or `state` has no "params". Errors of an earlier
            background save are raised here or in `wait`.
        """
        if step in self._saved:
            raise CheckpointError(f"{self.directory / str(step)} exists already")
        if PARAMS not in state:
            raise CheckpointError(f"a state to save needs the key 'params'; has {sorted(state)}")
        self.wait()
        self._note_score(step, scores or {})
        metadata = {
            "data_state": dict(data_state),
            "meta": dict(meta),
            "scores": {name: value for name, value in (scores or {}).items() if math.isfinite(value)},
        }
        with _told(self.directory / str(step)):
            writing = self._checkpointer.save_checkpointables_async(
                step, parts(state), force=True, custom_metadata=metadata
            )
        self._pending = self._thread.submit(self._finish, writing, self.directory / str(step))
        self._saved.add(step)

    def _finish(self, writing: Any, path: epath.Path) -> None:
        with _told(path):
            writing.result()
            if is_first():
                write_manifest(path)

    def _note_score(self, step: int, scores: Mapping[str, float]) -> None:
        if math.isfinite(score := scores.get(self._best, math.inf)):
            self._preserve.scores[step] = score

    def wait(self) -> None:
        """Return when the last save is on disk; raises the error that it ended with."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def steps(self) -> tuple[int, ...]:
        """The steps of all finished checkpoints, ascending."""
        return finished_steps(self.directory)

    def latest_step(self) -> int | None:
        """The newest finished checkpoint's step, or None."""
        return max(self.steps(), default=None)

    def sound_step(self) -> int | None:
        """The newest finished checkpoint whose files are all as they were written, or None where there are no
        checkpoints. Every file of it is read. Damaged newer ones are moved out of the way (9 becomes damaged-9).

        Raises:
          CheckpointError: when there are checkpoints, and all are damaged; they stay where they are.
        """
        sound, damaged = gather(self._look_for_sound_step() if is_first() else (None, False))[0]
        if sound is None and damaged:
            raise CheckpointError(
                f"{self.directory}: every checkpoint is damaged; move the directory away to start the run again"
            )
        self._saved = {step for step in self._saved if sound is not None and step <= sound}
        self._preserve.keep_scores(self._saved)
        return sound

    def _look_for_sound_step(self) -> tuple[int | None, bool]:
        """The step, and whether newer ones, or all, are damaged."""
        damaged: list[epath.Path] = []
        for step in reversed(self.steps()):
            path = self.directory / str(step)
            if (found := damage(path)) is None:
                for bad in damaged:
                    log.warning("%s becomes %s; going on from %s", bad, set_aside(bad, "damaged").name, path)
                return step, bool(damaged)
            log.warning("%s", found)
            damaged.append(path)
        return None, bool(damaged)

    def restore(
        self, step: int, abstract_state: Mapping[str, PyTree], meta: Mapping[str, Any] | None = None
    ) -> Restored:
        """Read a checkpoint onto the devices that `abstract_state` names, whatever mesh and number of processes it was
        saved from.

        Args:
          step: one of `steps()`.
          abstract_state: the state's structure; leaves `jax.ShapeDtypeStruct` with shape, dtype and sharding.
          meta: what the checkpoint's `meta` must hold; None asks nothing.

        Raises:
          CheckpointError: when there is no such finished checkpoint; when its meta differs; when parameters
            or optimizer state differ in name, shape or dtype (all that differ are named).
        """
        path = self.directory / str(step)
        saved = read_metadata(path)
        if meta is not None and (differing := differences(saved["meta"], _as_json(meta))):
            raise CheckpointError(f"{path} is of another run:\n  " + "\n  ".join(differing))
        wanted = parts(abstract_state)
        check_arrays(path, wanted, dtypes=True)
        loaded = ocp.load_checkpointables(path, wanted)
        return Restored(
            state={PARAMS: loaded[PARAMS], **loaded.get(TRAIN, {})},
            data_state=saved["data_state"],
            meta=saved["meta"],
        )

    def close(self) -> None:
        """Wait for the last save and let go of the background threads."""
        try:
            self.wait()
        finally:
            if "_thread" in vars(self):
                self._thread.shutdown()
            if "_checkpointer" in vars(self):
                with _told(self.directory):
                    self._checkpointer.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass
class _Preserve:
    """Orbax's question which checkpoints stay: the newest `keep`, and the one with the smallest score."""

    keep: int
    scores: dict[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(sorted(steps)[-self.keep :])
        scored = [step for step in steps if step in self.scores]
        if scored:
            kept.add(min(scored, key=lambda step: (self.scores[step], -step)))
        return [step in kept for step in steps]

    def keep_scores(self, steps: set[int]) -> None:
        self.scores = {step: score for step, score in self.scores.items() if step in steps}


@contextmanager
def _told(path: epath.Path) -> Iterator[None]:
    """Orbax passes on whatever the file system said, in errors of many types."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(
            f"{path} could not be written; the checkpoints before it stay, and the same line resumes: {error}"
        ) from error


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
