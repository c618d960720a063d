"""The arrays of a checkpoint: how they are divided into parts, and whether they are those that are wanted."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from chestx_jax.weights.model_files import differences
from chestx_jax.weights.step_directories import (
    PARAMS,
    CheckpointError,
    damage,
    finished_steps,
    read_metadata,
)

TRAIN = "train"  # all but the parameters

PyTree = Any


def restore_params(step_directory: epath.PathLike, abstract_params: PyTree) -> PyTree:
    """Only the parameters of a checkpoint: no optimizer, no data state. A dtype that differs is converted.

    Raises:
      CheckpointError: when the checkpoint is unfinished or damaged, or its parameters differ in name or shape.
    """
    path = epath.Path(step_directory)
    read_metadata(path)
    if found := damage(path, PARAMS):
        others = [str(step) for step in finished_steps(path.parent) if str(step) != path.name]
        raise CheckpointError(
            f"{found}. Other checkpoints beside it: {', '.join(others) or 'none'}; name one as the directory"
        )
    check_arrays(path, {PARAMS: abstract_params}, dtypes=False)
    return ocp.load_checkpointables(path, {PARAMS: abstract_params})[PARAMS]


def saved_params(step_directory: epath.PathLike) -> dict[str, jax.ShapeDtypeStruct]:
    """Dotted path -> shape and dtype of every parameter in a checkpoint, read from its metadata."""
    path = epath.Path(step_directory)
    read_metadata(path)
    return _flat(ocp.checkpointables_metadata(path).metadata[PARAMS])


def check_arrays(path: epath.Path, wanted: Mapping[str, PyTree], *, dtypes: bool) -> None:
    """Raises CheckpointError naming every array that differs in name, shape or (`dtypes`) type."""
    saved = ocp.checkpointables_metadata(path).metadata
    lines: list[str] = []
    for part, tree in wanted.items():
        found, expected = (
            {name: _describe(leaf, dtypes) for name, leaf in _flat(half).items()}
            for half in (saved.get(part, {}), tree)
        )
        lines += differences(found, expected, "" if part == TRAIN else f"{part}.")
    if lines:
        raise CheckpointError(f"{path} does not fit this model or optimizer:\n  " + "\n  ".join(lines))


def parts(state: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """What Orbax stores apart, so that the parameters can be read alone; it refuses to store nothing."""
    rest = {key: value for key, value in state.items() if key != PARAMS}
    return {PARAMS: state[PARAMS], **({TRAIN: rest} if rest else {})}


def _describe(leaf: Any, dtypes: bool) -> str:
    shape = f"{tuple(np.shape(leaf) if not hasattr(leaf, 'shape') else leaf.shape)}"
    return f"{np.dtype(leaf.dtype).name} {shape}" if dtypes and hasattr(leaf, "dtype") else shape


def _flat(tree: PyTree) -> dict[str, Any]:
    """Dotted name -> leaf; named tuples, lists and dicts name their parts alike in memory and in metadata."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
