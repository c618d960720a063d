"""The files of a Hugging Face processor directory: which there are, and reading them without torch."""

import json
from pathlib import Path
from typing import Any

from chestx_jax.data.patches import PatchConfig, PatchError

FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""Everything a directory may hold about text and images; `save_pretrained` copies what is there."""
OURS = "chestx_jax.json"
"""Beside them, of a model that we trained: {"image_size": pixels}, which Hugging Face's files cannot say."""
PUBLISHED_IMAGE_SIZE = 448
"""What ChestX-Reasoner was trained with (arXiv 2504.20930); taken where `OURS` is not there."""


class ProcessorError(ValueError):
    """A processor directory, or a sample, that cannot be processed; names the directory, or the sample and
    its field."""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProcessorError(f"{path}: not valid JSON: {error}") from error


def read_image_size(directory: Path) -> int:
    """The side, in pixels, of the squares that the model of this directory was trained with."""
    path = directory / OURS
    if not path.is_file():
        return PUBLISHED_IMAGE_SIZE
    size = _read_json(path).get("image_size")
    if not isinstance(size, int) or size < 1:
        raise ProcessorError(f"{path}: field 'image_size': {size!r} is not a number of pixels")
    return size


def read_patch_config(directory: Path) -> PatchConfig:
    """From preprocessor_config.json or, as transformers 5 saves it, from the "image_processor" in
    processor_config.json."""
    old, new = directory / "preprocessor_config.json", directory / "processor_config.json"
    if old.is_file():
        config, path = _read_json(old), old
    elif new.is_file() and "image_processor" in (config := _read_json(new)):
        config, path = config["image_processor"], new
    else:
        looked = f"looked for {old.name} and for image_processor in {new.name}"
        raise ProcessorError(f"{directory}: no image preprocessor configuration ({looked})")
    try:
        return PatchConfig.from_hf(config)
    except (PatchError, TypeError, ValueError) as error:
        raise ProcessorError(f"{path}: {error}") from error


def read_tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer  # seconds to import: only who loads a processor pays

    if not (directory / "tokenizer.json").is_file():
        missing = [name for name in ("vocab.json", "merges.txt") if not (directory / name).is_file()]
        if missing:
            looked = "looked for tokenizer.json, or vocab.json with merges.txt"
            raise ProcessorError(f"{directory}: no tokenizer: {', '.join(missing)} missing ({looked})")
    if not (directory / "tokenizer_config.json").is_file():
        raise ProcessorError(f"{directory}: tokenizer_config.json is missing")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # whatever the library raises on a broken file
        raise ProcessorError(f"{directory}: the tokenizer cannot be loaded: {error}") from error
    legacy = directory / "chat_template.json"
    if legacy.is_file() and not (directory / "chat_template.jinja").is_file():
        tokenizer.chat_template = _read_json(legacy)["chat_template"]
    if not tokenizer.chat_template:
        looked = (
            "looked for chat_template.jinja, chat_template.json and chat_template in tokenizer_config.json"
        )
        raise ProcessorError(f"{directory}: no chat template ({looked})")
    return tokenizer
