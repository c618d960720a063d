"""The small files beside the weights: config.json, tokenizer, processor, generation config."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from chestx_jax.storage import is_cloud, to_path

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
ADAPTER = "adapter.json"
TOKENIZER_AND_PROCESSOR = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chestx_jax.json",
)


class WeightsError(Exception):
    """Weights that cannot be read, written or placed; the message names files, tensors and fields."""


@dataclass(frozen=True)
class Adapter:
    """What `add_lora` needs to build the adapters of a checkpoint again."""

    rank: int
    alpha: float
    targets: str


def read_config(directory: Path) -> tuple[Qwen2VLConfig, bytes]:
    """The model's config and the very bytes of its config.json.

    Raises:
      WeightsError: when the file is missing, is not JSON, or does not describe a Qwen2-VL model.
    """
    path = to_path(directory) / CONFIG
    try:
        content = path.read_bytes()
        return Qwen2VLConfig.from_hf(json.loads(content)), content
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist; expected a Hugging Face model directory") from None
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} does not describe a Qwen2-VL model: {error}") from error


def copy_companions(source: Path, target: Path) -> tuple[str, ...]:
    """Copy generation config, tokenizer and processor files, those that exist; returns their names."""
    source, target = to_path(source), to_path(target)
    names = [name for name in (GENERATION_CONFIG, *TOKENIZER_AND_PROCESSOR) if (source / name).is_file()]
    if os.path.realpath(source) == os.path.realpath(target):
        return tuple(names)
    for name in names:
        (target / name).write_bytes((source / name).read_bytes())
    return tuple(names)


def write_model_files(
    workdir: Path, config: Qwen2VLConfig, *, source: Path | None = None, adapter: Adapter | None = None
) -> None:
    """Write `workdir/model`: all that a checkpoint needs, beside its arrays, to be loaded, served and
    exported.

    Args:
      workdir: a run's directory, the parent of `checkpoints`.
      config: of the model in training.
      source: directory with tokenizer and processor files; its config.json is kept to the byte when it
        describes `config`.
      adapter: of a LoRA run.

    Of several processes the first one writes. A rerun of the same line writes the same files again.

    Raises:
      WeightsError: when the directory already belongs to another model or adapter; names the fields that
        differ.
    """
    model = Path(workdir) / "model"
    if (model / CONFIG).exists():
        _check_same(model, config, adapter)
    if jax.process_index() != 0:
        return
    model.mkdir(parents=True, exist_ok=True)
    if source is not None:
        copy_companions(source, model)
    if adapter is not None:
        write_atomically(model / ADAPTER, json.dumps(asdict(adapter), indent=2).encode() + b"\n")
    # Last: other processes compare with what is there as soon as this file is.
    write_atomically(model / CONFIG, config_bytes(config, None, source))


def config_bytes(config: Qwen2VLConfig, known: bytes | None, source: Path | None) -> bytes:
    """`known`, or else config.json of `source`, where that describes `config`; otherwise rendered from
    `config`.

    Args:
      known: the config.json that the model was loaded with.
      source: a directory that may hold one.
    """
    if known is not None and Qwen2VLConfig.from_hf(json.loads(known)) == config:
        return known
    if source is not None and (Path(source) / CONFIG).exists():
        described, content = read_config(source)
        if described == config:
            return content
    return json.dumps(config.to_hf(), indent=2, sort_keys=True).encode() + b"\n"


def read_adapter(model: Path) -> Adapter | None:
    """The adapter settings that `write_model_files` left, or None for a run without adapters."""
    path = to_path(model) / ADAPTER
    return Adapter(**json.loads(path.read_text())) if path.exists() else None


def _check_same(model: Path, config: Qwen2VLConfig, adapter: Adapter | None) -> None:
    found, _ = read_config(model)
    there = read_adapter(model)
    differing = differences(asdict(found), asdict(config)) + differences(
        {"adapter": asdict(there) if there else None}, {"adapter": asdict(adapter) if adapter else None}
    )
    if differing:
        raise WeightsError(f"{model} belongs to another model:\n  " + "\n  ".join(differing))


def differences(found: Mapping[str, Any], expected: Mapping[str, Any], at: str = "") -> list[str]:
    """One line for every field in which two nested mappings differ."""
    lines: list[str] = []
    for key in [*found, *(key for key in expected if key not in found)]:
        name = f"{at}{key}"
        if key not in found:
            lines.append(f"{name}: absent there, {expected[key]!r} here")
        elif key not in expected:
            lines.append(f"{name}: {found[key]!r} there, absent here")
        elif isinstance(found[key], Mapping) and isinstance(expected[key], Mapping):
            lines += differences(found[key], expected[key], f"{name}.")
        elif found[key] != expected[key]:
            lines.append(f"{name}: {found[key]!r} there, {expected[key]!r} here")
    return lines


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that a crash leaves the old content or the new, never a part."""
    if is_cloud(path):  # which has nothing else
        path.write_bytes(content)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
