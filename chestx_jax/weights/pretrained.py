"""A model from a Hugging Face directory, or from a checkpoint of ours.

Tensors are read one at a time, straight into the stacked parameter they are a layer of; on a mesh every
process reads only the parts that its own devices hold. Out of a bucket every process fetches the tensors of one
parameter at a time, whole, and keeps them until its devices have their parts.
"""

import json
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from chestx_jax.models.lora import add_lora, merge_lora
from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig
from chestx_jax.parallel import shardings
from chestx_jax.storage import is_cloud, to_path
from chestx_jax.weights.model_files import Adapter, WeightsError, read_adapter, read_config
from chestx_jax.weights.safetensors_file import TensorInfo, fetched, mapped, read_header
from chestx_jax.weights.step_directories import companions, find_step
from chestx_jax.weights.stored_arrays import restore_params, saved_params
from chestx_jax.weights.table import Shape, Slot, check_keys, expected_keys, file_key, from_file, keys_of

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
Extend = Callable[[Qwen2VL], None]
Opened = Callable[[], AbstractContextManager[np.ndarray]]
_BLOCK = 256  # columns transposed at a time, so that both sides of the copy stay in the cache


@dataclass(frozen=True)
class Source:
    """Where a model came from: export keeps its config.json to the byte and carries its small files along."""

    directory: Path
    config: bytes


# Beside the model, not in it: an attribute would be part of the graph definition, and two equal models would
# differ.
_SOURCES: weakref.WeakKeyDictionary[Qwen2VL, Source] = weakref.WeakKeyDictionary()


def source_of(model: Qwen2VL) -> Source | None:
    """Where `load_pretrained` found this very object; None for any other model."""
    return _SOURCES.get(model)


def load_pretrained(
    directory: Path | str,
    dtype: Any = None,
    mesh: Mesh | None = None,
    *,
    compute_dtype: Any = None,
    remat: str = "none",
    attention: str = "xla",
    extend: Extend | None = None,
) -> Qwen2VL:
    """Load a Qwen2-VL model.

    Args:
      directory: a Hugging Face directory (config.json and safetensors files), or a checkpoint of ours: a
        run's workdir (its newest checkpoint), or one step's directory. Adapters of a LoRA run come merged.
        All may be in a bucket, but for checkpoints in s3://.
      dtype: of the parameters; None keeps that of the files. bfloat16 to float32 is exact.
      mesh: where the parameters go, by `parallel.RULES`; None puts all on the default device.
      compute_dtype: of the activations; None takes that of the parameters.
      remat, attention: see `Qwen2VL`.
      extend: puts on what a checkpoint's model carries besides (`models.process_reward.add_step_head`).

    Raises:
      WeightsError: for files that are missing or damaged, and for unknown, missing and misshapen tensors, all
        at once; nothing is loaded then.
      CheckpointError: for a checkpoint that is unfinished or does not fit its own config.
      MeshError: for parameters that the sharding rules do not place.
      AttentionError: for an attention that is none, or that does not compute in this type.
    """
    step_directory = find_step(directory)
    if step_directory is not None:
        model_directory = to_path(companions(step_directory))
        config, content = read_config(model_directory)
        infos = saved_params(step_directory)
        dtype = _one_dtype({path: info.dtype for path, info in infos.items()}, step_directory, dtype)
        adapter = read_adapter(model_directory)
        abstract = _abstract_model(config, dtype, compute_dtype, remat, attention, adapter, extend)
        model = _fill_from_checkpoint(abstract, step_directory, mesh)
        merge_lora(model)
    else:
        model_directory = to_path(directory)
        config, content = read_config(model_directory)
        tensors = read_index(model_directory)
        dtype = _one_dtype({key: info.dtype for key, info in tensors.items()}, directory, dtype)
        abstract = _abstract_model(config, dtype, compute_dtype, remat, attention, None)
        model = _fill_from_tensors(abstract, tensors, mesh, str(directory))
    _SOURCES[model] = Source(model_directory, content)
    return model


def flat_params(model: nnx.Module) -> dict[str, Any]:
    """Dotted path -> array (or ShapeDtypeStruct) of every parameter."""
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    return {".".join(map(str, path)): value for path, value in flat.items()}


def patch_shape(config: Qwen2VLConfig) -> Shape:
    """[channels, frames, height, width] of a patch."""
    vision = config.vision
    return (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)


def read_index(directory: Path) -> dict[str, TensorInfo]:
    """File key (in the style of files) -> where it lies, of a whole directory, one file or sharded.

    Raises:
      WeightsError: when there are no safetensors files, a shard is missing or damaged, a tensor occurs twice,
        or the index and the files disagree.
    """
    single, index = directory / SINGLE, directory / INDEX
    if not single.exists() and not index.exists():
        raise WeightsError(f"{directory} holds neither {SINGLE} nor {INDEX}")
    if single.exists() and index.exists():
        raise WeightsError(
            f"{directory} holds both {SINGLE} and {INDEX}; remove the one that does not belong"
        )
    if single.exists():
        return _in_file_style(read_header(single).items(), directory)
    try:
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{index} is damaged: {error!r}") from error
    names = sorted(set(weight_map.values()))
    if absent := [name for name in names if not (directory / name).is_file()]:
        raise WeightsError(f"{index} names files that are not there: {', '.join(absent)}")
    headers = {name: read_header(directory / name) for name in names}
    listed = {(key, name) for key, name in weight_map.items()}
    lying = {(key, name) for name, header in headers.items() for key in header}
    if listed != lying:
        lines = [f"{key} is listed in {name}, but not there" for key, name in sorted(listed - lying)]
        lines += [f"{key} lies in {name}, but is not listed" for key, name in sorted(lying - listed)]
        raise WeightsError(f"{index} and its files disagree:\n  " + "\n  ".join(lines))
    return _in_file_style((item for header in headers.values() for item in header.items()), directory)


def _in_file_style(items: Any, directory: Path) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for key, info in items:
        if file_key(key) in tensors:
            raise WeightsError(
                f"{directory}: {file_key(key)} is there twice ({tensors[file_key(key)].file}, {info.file})"
            )
        tensors[file_key(key)] = info
    return tensors


def _one_dtype(found: Mapping[str, Any], where: Any, dtype: Any) -> np.dtype:
    if dtype is not None:
        return np.dtype(dtype)
    kinds = {np.dtype(kind): name for name, kind in found.items()}
    if len(kinds) != 1:
        examples = ", ".join(f"{kind.name} ({name})" for kind, name in kinds.items())
        raise WeightsError(f"{where} holds tensors of several types: {examples}; say which one with dtype=")
    return next(iter(kinds))


def _abstract_model(
    config: Qwen2VLConfig,
    dtype: np.dtype,
    compute_dtype: Any,
    remat: str,
    attention: str,
    adapter: Adapter | None,
    extend: Extend | None = None,
) -> Qwen2VL:
    def make() -> Qwen2VL:
        rngs = nnx.Rngs(0)
        compute = dtype if compute_dtype is None else compute_dtype
        model = Qwen2VL(config, rngs=rngs, dtype=compute, param_dtype=dtype, remat=remat, attention=attention)
        if adapter is not None:
            add_lora(model, adapter.rank, adapter.alpha, adapter.targets, rngs)
        if extend is not None:
            extend(model)
        return model

    return nnx.eval_shape(make)


def _with_params(abstract: Qwen2VL, params: Mapping[str, Any]) -> Qwen2VL:
    graphdef, _ = nnx.split(abstract)
    nested = traverse_util.unflatten_dict({tuple(path.split(".")): value for path, value in params.items()})
    return nnx.merge(graphdef, nnx.State(nested))


def _placements(abstract: Qwen2VL, mesh: Mesh | None) -> dict[str, Sharding]:
    if mesh is None:
        return dict.fromkeys(flat_params(abstract), SingleDeviceSharding(jnp.zeros(()).device))
    flat = traverse_util.flatten_dict(shardings(abstract, mesh))
    return {".".join(map(str, path)): placed for path, placed in flat.items()}


def _fill_from_checkpoint(abstract: Qwen2VL, step_directory: Any, mesh: Mesh | None) -> Qwen2VL:
    placed = _placements(abstract, mesh)
    wanted = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed[path])
        for path, leaf in flat_params(abstract).items()
    }
    nested = traverse_util.unflatten_dict({tuple(path.split(".")): leaf for path, leaf in wanted.items()})
    graphdef, _ = nnx.split(abstract)
    return nnx.merge(graphdef, nnx.State(restore_params(step_directory, nested)))


def _fill_from_tensors(
    abstract: Qwen2VL, tensors: Mapping[str, TensorInfo], mesh: Mesh | None, where: str
) -> Qwen2VL:
    leaves = flat_params(abstract)
    expected = expected_keys(
        {path: tuple(leaf.shape) for path, leaf in leaves.items()}, patch_shape(abstract.config)
    )
    check_keys({key: info.shape for key, info in tensors.items()}, expected, where)
    placed = _placements(abstract, mesh)
    params = {path: _read_param(path, leaf, tensors, placed[path]) for path, leaf in leaves.items()}
    return _with_params(abstract, params)


def _read_param(
    path: str, leaf: jax.ShapeDtypeStruct, tensors: Mapping[str, TensorInfo], placed: Sharding
) -> jax.Array:
    keys = list(keys_of(path, tuple(leaf.shape)))
    infos = [tensors[key] for key, _ in keys]
    found: list[Opened] = [partial(mapped, info) for info in infos]
    if is_cloud(infos[0].file):
        found = [_kept(tensor) for tensor in fetched(infos)]
    parts = [(slot, opened) for (_, slot), opened in zip(keys, found, strict=True)]

    def read(index: Any) -> np.ndarray:  # a slice for each axis
        shape = tuple(len(range(*cut.indices(size))) for cut, size in zip(index, leaf.shape, strict=True))
        out = _aligned(shape, leaf.dtype)
        if parts[0][0].layer is None:
            _copy(parts[0], index, out)
        else:
            for row, part in zip(out, parts[index[0]], strict=True):
                _copy(part, index[1:], row)
        return out

    # Waiting frees each host buffer before the next one is filled.
    return jax.make_array_from_callback(leaf.shape, placed, read, dtype=leaf.dtype).block_until_ready()


def _kept(tensor: np.ndarray) -> Opened:
    return lambda: nullcontext(tensor)


def _copy(part: tuple[Slot, Opened], index: tuple[slice, ...], out: np.ndarray) -> None:
    slot, opened = part
    with opened() as tensor:
        source = from_file(slot, tensor)[index]
        if source.flags.c_contiguous:
            out[...] = source
        else:
            for start in range(0, source.shape[1], _BLOCK):
                out[:, start : start + _BLOCK] = source[:, start : start + _BLOCK]


def _aligned(shape: Shape, dtype: np.dtype) -> np.ndarray:
    """Uninitialised memory on a 64-byte boundary, which the CPU backend takes over without a copy."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
