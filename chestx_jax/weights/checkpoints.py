"""Training checkpoints with Orbax.

Layout of a run's directory:

    workdir/model/               config.json, tokenizer, processor and generation files; adapter.json for LoRA
    workdir/checkpoints/<step>/  params (an Orbax tree), train (the rest of the state: optimizer, step), and
                                 data_state and meta as JSON in _CHECKPOINT_METADATA

`params` holds every parameter, frozen ones and adapters too, so one step directory and `model` are the whole
model: `load_pretrained` takes a workdir (newest step), its `checkpoints`, or one step directory.
Directories of saves that never finished are ignored.
"""

import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from chestx_jax.weights.model_files import differences

CHECKPOINTS, MODEL = "checkpoints", "model"
_METADATA = "_CHECKPOINT_METADATA"
_TEMPORARY = ".orbax-checkpoint-tmp"
_PARAMS, _TRAIN = "params", "train"

PyTree = Any
log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint that is missing, unfinished, or of another model or run; the message names what
    differs."""


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
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int) -> None:
        self.directory = epath.Path(workdir).absolute() / CHECKPOINTS
        _set_unfinished_aside(self.directory)
        self._saved: set[int] = set(finished_steps(self.directory))
        self._pending: Any = None
        self._keep = keep

    @functools.cached_property
    def _checkpointer(self) -> Any:
        """Made by the first save: it starts background threads, which a program that stops before has no use
        for and would leave in the middle of their work."""
        return ocp.training.Checkpointer(
            self.directory,
            preservation_policy=ocp.training.preservation_policies.LatestN(self._keep),
        )

    def save(
        self, step: int, state: Mapping[str, PyTree], data_state: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> None:
        """Start writing a checkpoint; returns when the arrays are copied off the devices, so they may be
        donated.

        Args:
          step: number of finished updates.
          state: {"params": all parameters, nested; anything else, e.g. "opt_state", "step"}: pytrees of
            arrays.
          data_state: this process's data iterator state, JSON.
          meta: what tells this run from another, JSON; the same on every process.

        Raises:
          CheckpointError: when the step is there already, or `state` has no "params". Errors of an earlier
            background save are raised here or in `wait`.
        """
        if step in self._saved:
            raise CheckpointError(f"{self.directory / str(step)} exists already")
        if _PARAMS not in state:
            raise CheckpointError(f"a state to save needs the key 'params'; has {sorted(state)}")
        self.wait()
        self._pending = self._checkpointer.save_checkpointables_async(
            step,
            _parts(state),
            force=True,
            custom_metadata={"data_state": _of_all_processes(data_state), "meta": dict(meta)},
        )
        self._saved.add(step)

    def wait(self) -> None:
        """Return when the last save is on disk; raises the error that it ended with."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def steps(self) -> tuple[int, ...]:
        """The steps of all finished checkpoints, ascending."""
        return finished_steps(self.directory)

    def latest_step(self) -> int | None:
        """The newest finished checkpoint's step, or None."""
        return max(self.steps(), default=None)

    def restore(
        self, step: int, abstract_state: Mapping[str, PyTree], meta: Mapping[str, Any] | None = None
    ) -> Restored:
        """Read a checkpoint onto the devices that `abstract_state` names, whatever mesh it was saved from.

        Args:
          step: one of `steps()`.
          abstract_state: the state's structure; leaves `jax.ShapeDtypeStruct` with shape, dtype and sharding.
          meta: what the checkpoint's `meta` must hold; None asks nothing.

        Raises:
          CheckpointError: when there is no such finished checkpoint; when its meta differs; when parameters
            or optimizer state differ in name, shape or dtype (all that differ are named); or when it was
            saved by another number of processes.
        """
        path = self.directory / str(step)
        saved = _read_metadata(path)
        if meta is not None and (differing := differences(saved["meta"], _as_json(meta))):
            raise CheckpointError(f"{path} is of another run:\n  " + "\n  ".join(differing))
        wanted = _parts(abstract_state)
        _check_arrays(path, wanted, dtypes=True)
        data_states = saved["data_state"]
        if len(data_states) != jax.process_count():
            raise CheckpointError(
                f"{path} was saved by {len(data_states)} processes, here are {jax.process_count()}: "
                "the position in the data cannot be carried over"
            )
        loaded = ocp.load_checkpointables(path, wanted)
        return Restored(
            state={_PARAMS: loaded[_PARAMS], **loaded.get(_TRAIN, {})},
            data_state=data_states[jax.process_index()],
            meta=saved["meta"],
        )

    def close(self) -> None:
        """Wait for the last save and let go of the background threads."""
        self.wait()
        if "_checkpointer" in vars(self):
            self._checkpointer.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def restore_params(step_directory: epath.PathLike, abstract_params: PyTree) -> PyTree:
    """Only the parameters of a checkpoint: no optimizer, no data state. A dtype that differs is converted.

    Raises:
      CheckpointError: when the checkpoint is unfinished, or its parameters differ in name or shape.
    """
    path = epath.Path(step_directory)
    _read_metadata(path)
    _check_arrays(path, {_PARAMS: abstract_params}, dtypes=False)
    return ocp.load_checkpointables(path, {_PARAMS: abstract_params})[_PARAMS]


def saved_params(step_directory: epath.PathLike) -> dict[str, jax.ShapeDtypeStruct]:
    """Dotted path -> shape and dtype of every parameter in a checkpoint, read from its metadata."""
    path = epath.Path(step_directory)
    _read_metadata(path)
    return _flat(ocp.checkpointables_metadata(path).metadata[_PARAMS])


def find_step(directory: epath.PathLike) -> epath.Path | None:
    """The step directory that `directory` means: itself, or the newest in it or in its `checkpoints`.

    None when `directory` is nothing of ours.

    Raises:
      CheckpointError: when it is a run's directory, but no checkpoint in it is finished.
    """
    path = epath.Path(directory).absolute()  # Orbax takes no other, and a run is found by a step's parents
    if (path / _METADATA).exists():
        return path
    for root in (path / CHECKPOINTS, path):
        if steps := finished_steps(root):
            return root / str(steps[-1])
    if (path / CHECKPOINTS).is_dir():
        raise CheckpointError(f"{path / CHECKPOINTS} holds no finished checkpoint")
    return None


def companions(directory: epath.PathLike) -> epath.Path:
    """Where a model's config, tokenizer and processor files are: in its Hugging Face directory, or in the
    `model` directory of the run that its checkpoint belongs to."""
    step = find_step(directory)
    return epath.Path(directory) if step is None else step.parent.parent / MODEL


def finished_steps(root: epath.PathLike) -> tuple[int, ...]:
    """Steps under `root` whose save was completed, ascending."""
    root = epath.Path(root)
    if not root.is_dir():
        return ()
    return tuple(sorted(int(p.name) for p in root.iterdir() if p.name.isdecimal() and _is_finished(p)))


def _set_unfinished_aside(root: epath.Path) -> None:
    """Orbax would count them among those to keep, and refuse to save a step of the same number. What a killed
    save left under a temporary name is removed."""
    if jax.process_index() == 0 and root.is_dir():
        for path in list(root.iterdir()):
            if _TEMPORARY in path.name:
                path.rmtree()
            elif path.name.isdecimal() and not _is_finished(path):
                aside = root / f"unfinished-{path.name}"
                log.warning("%s is no finished checkpoint; it becomes %s", path, aside.name)
                if aside.exists():
                    aside.rmtree()
                path.rename(aside)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"unfinished checkpoints of {root} are set aside")


def _is_finished(path: epath.Path) -> bool:
    try:
        _read_metadata(path)
    except CheckpointError:
        return False
    return True


def _read_metadata(path: epath.Path) -> dict[str, Any]:
    try:
        content = json.loads((path / _METADATA).read_text())
        whole = (
            content["commit_timestamp_nsecs"] and ocp.is_orbax_checkpoint(path) and (path / _PARAMS).is_dir()
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no finished checkpoint: {error}") from error
    if not whole:
        raise CheckpointError(f"{path} is no finished checkpoint")
    return content["custom_metadata"]


def _check_arrays(path: epath.Path, wanted: Mapping[str, PyTree], *, dtypes: bool) -> None:
    saved = ocp.checkpointables_metadata(path).metadata
    lines: list[str] = []
    for part, tree in wanted.items():
        found, expected = (
            {name: _describe(leaf, dtypes) for name, leaf in _flat(half).items()}
            for half in (saved.get(part, {}), tree)
        )
        lines += differences(found, expected, "" if part == _TRAIN else f"{part}.")
    if lines:
        raise CheckpointError(f"{path} does not fit this model or optimizer:\n  " + "\n  ".join(lines))


def _parts(state: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """What Orbax stores apart, so that the parameters can be read alone; it refuses to store nothing."""
    rest = {key: value for key, value in state.items() if key != _PARAMS}
    return {_PARAMS: state[_PARAMS], **({_TRAIN: rest} if rest else {})}


def _describe(leaf: Any, dtypes: bool) -> str:
    shape = f"{tuple(np.shape(leaf) if not hasattr(leaf, 'shape') else leaf.shape)}"
    return f"{np.dtype(leaf.dtype).name} {shape}" if dtypes and hasattr(leaf, "dtype") else shape


def _flat(tree: PyTree) -> dict[str, Any]:
    """Dotted name -> leaf; named tuples, lists and dicts name their parts alike in memory and in metadata."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _of_all_processes(data_state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every process's iterator state, in process order (the checkpoint's JSON is written by the first)."""
    if jax.process_count() == 1:
        return [_as_json(dict(data_state))]
    content = np.frombuffer(json.dumps(dict(data_state)).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray([content.size]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: content.size] = content
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, np.ravel(sizes), strict=True)]
