"""A model as a Hugging Face directory that transformers and vLLM load.

Written a tensor at a time beside its final place, read again, and only then moved there: a directory that
exists is a whole one. A bucket moves nothing; there it is one that has a config.json, which is written last.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import Array, Float

from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.models.qwen2_vl.layers import linears
from chestx_jax.storage import absolute, is_cloud, to_path
from chestx_jax.weights.model_files import CONFIG, WeightsError, config_bytes, copy_companions
from chestx_jax.weights.pretrained import INDEX, SINGLE, flat_params, patch_shape, source_of
from chestx_jax.weights.safetensors_file import DTYPES, SafetensorsWriter
from chestx_jax.weights.table import TRANSPOSED, Shape, Slot, expected_keys

MAX_SHARD_BYTES = 5_000_000_000  # transformers' default until 4.x; vLLM and older readers like it
Entry = tuple[Slot, Shape]


def save_pretrained(
    model: Qwen2VL,
    directory: Path | str,
    processor_dir: Path | str | None = None,
    *,
    dtype: Any = None,
    max_shard_bytes: float = MAX_SHARD_BYTES,
) -> None:
    """Write config.json, safetensors, and the generation, tokenizer and processor files.

    Keys are those that transformers writes. Adapters are merged into what is written, not in the model. The
    config.json that the model was loaded with is kept to the byte, but for the weights' type where that
    changed.

    Args:
      model: on any mesh; of several processes all must call this, and the first one writes.
      directory: must not exist, or be empty; on this machine or in a bucket.
      processor_dir: where tokenizer and processor files are; None takes the directory that the model was
        loaded from.
      dtype: of the written weights; None keeps the parameters'.
      max_shard_bytes: no file grows larger, but for a single tensor that is.

    Raises:
      WeightsError: when `directory` holds anything, when a parameter has no file key, or when what lies on
        disk in the end is not what was written. Nothing is left behind then.
    """
    out = to_path(absolute(directory))
    source = source_of(model)
    companions = (
        to_path(processor_dir) if processor_dir is not None else (source.directory if source else None)
    )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise WeightsError(f"{out} exists and is not an empty directory; it is left as it is")
    if companions is not None and not companions.is_dir():
        raise WeightsError(
            f"{companions}, which should hold tokenizer and processor files, is not a directory"
        )
    entries, tensor_of, written_dtype = _tensors(model, dtype)
    shards = _plan(entries, written_dtype, max_shard_bytes)
    config = _config(model, companions, written_dtype)
    with _appearing(out) as partial:
        for name, keys in shards.items():
            _write_shard(partial and partial / name, keys, entries, tensor_of, written_dtype)
        if partial is not None:
            if len(shards) > 1:
                (partial / INDEX).write_bytes(_index(shards, entries, written_dtype))
            if companions is not None:
                copy_companions(companions, partial)
            (partial / CONFIG).write_bytes(config)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"exported {out}")


def _tensors(model: Qwen2VL, dtype: Any) -> tuple[dict[str, Entry], Callable[[Slot], jax.Array], np.dtype]:
    """File key -> slot and shape; how to get one tensor, merged and in the file's layout; and its type."""
    params = {path: value for path, value in flat_params(model).items() if ".lora_" not in path}
    adapters = {
        f"{path}.kernel": (layer.lora_a[...], layer.lora_b[...], layer.lora_scale)
        for path, layer in linears(model)
        if layer.lora_a is not None and layer.lora_b is not None
    }
    kinds = {value.dtype for value in params.values()}
    if dtype is None and len(kinds) != 1:
        raise WeightsError(f"the parameters have several types, {kinds}; say which one to write with dtype=")
    written = np.dtype(dtype if dtype is not None else kinds.pop())
    if written not in DTYPES.values():
        raise WeightsError(
            f"weights cannot be written as {written}; only {', '.join(map(str, DTYPES.values()))}"
        )
    entries = expected_keys({path: value.shape for path, value in params.items()}, patch_shape(model.config))

    def tensor_of(slot: Slot) -> jax.Array:
        adapter, transposed = adapters.get(slot.path), slot.layout == TRANSPOSED
        return _take(params[slot.path], slot.layer, adapter, transposed=transposed, dtype=written)

    return entries, tensor_of, written


@jax.jit(static_argnames=("transposed", "dtype"))
def _take(
    value: Float[Array, "..."], layer: Any, adapter: Any, *, transposed: bool, dtype: np.dtype
) -> Float[Array, "..."]:
    """(One layer of) a parameter, its adapter added as `models.lora.merge_lora` does, ready for the file."""

    def pick(array: Array) -> Array:
        return array if layer is None else jax.lax.dynamic_index_in_dim(array, layer, keepdims=False)

    value = pick(value)
    if adapter is not None:
        a, b, scale = adapter
        a, b = pick(a).astype(jnp.float32), pick(b).astype(jnp.float32)
        value = (value.astype(jnp.float32) + scale * jnp.matmul(a, b)).astype(value.dtype)
    return (value.T if transposed else value).astype(dtype)


def _on_host(value: jax.Array) -> np.ndarray:
    if value.is_fully_addressable:
        return np.asarray(value)
    return np.asarray(multihost_utils.process_allgather(value, tiled=True))


def _plan(entries: Mapping[str, Entry], dtype: np.dtype, max_shard_bytes: float) -> dict[str, list[str]]:
    """File name -> keys: in the order of the keys, a new file when the next tensor would not fit."""
    groups: list[list[str]] = []
    room = 0.0
    for key in sorted(entries):
        size = _bytes(entries[key], dtype)
        if not groups or size > room:
            groups.append([])
            room = max_shard_bytes
        groups[-1].append(key)
        room -= size
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    return {f"model-{i:05}-of-{len(groups):05}.safetensors": keys for i, keys in enumerate(groups, 1)}


def _bytes(entry: Entry, dtype: np.dtype) -> int:
    return int(np.prod(entry[1])) * dtype.itemsize


def _index(shards: Mapping[str, list[str]], entries: Mapping[str, Entry], dtype: np.dtype) -> bytes:
    size = sum(_bytes(entry, dtype) for entry in entries.values())
    index = {
        "metadata": {"total_parameters": size // dtype.itemsize, "total_size": size},
        "weight_map": {key: name for name, keys in shards.items() for key in keys},
    }
    return json.dumps(index, indent=2, sort_keys=True).encode() + b"\n"


def _write_shard(
    path: Path | None,
    keys: list[str],
    entries: Mapping[str, Entry],
    tensor_of: Callable[[Slot], jax.Array],
    dtype: np.dtype,
) -> None:
    """Write and verify one file; `path` is None on the processes that only help to gather."""
    if path is None:
        for key in sorted(keys):
            _on_host(tensor_of(entries[key][0]))
        return
    writer = SafetensorsWriter(path, {key: (dtype, entries[key][1]) for key in keys})
    with writer:
        for key in writer.order:
            slot, shape = entries[key]
            writer.write(key, np.ascontiguousarray(_on_host(tensor_of(slot))).reshape(shape))
    writer.verify()


def _config(model: Qwen2VL, companions: Path | None, dtype: np.dtype) -> bytes:
    """The source's config.json; rendered only where there is none, or the weights' type is another."""
    source = source_of(model)
    content = config_bytes(model.config, source.config if source else None, companions)
    config = json.loads(content)
    name = "torch_dtype" if "torch_dtype" in config or "dtype" not in config else "dtype"
    if config.get(name) == dtype.name:
        return content
    config[name] = dtype.name
    return json.dumps(config, indent=2).encode() + b"\n"


@contextmanager
def _appearing(out: Path) -> Iterator[Path | None]:
    """A hidden sibling directory that becomes `out` when the block ends well, and vanishes when it does not.

    None on every process but the first. In a bucket it is `out` from the start.
    """
    if jax.process_index() != 0:
        yield None
        return
    if is_cloud(out):
        try:
            yield out
        except BaseException:
            epath.Path(out).rmtree(missing_ok=True)
            raise
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        yield partial
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o777 & ~mask)  # mkdtemp's 0700 would lock other users out
        for path in (*partial.iterdir(), partial):
            _flush(path)
        partial.rename(out)
        stack.pop_all()
        _flush(out.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
