"""The one table between tensors in Hugging Face files and parameters here.

A row holds a key of the file, a parameter's path and how the one becomes the other. Names in braces stand for
the same text on both sides; `{layer}` is the index on the stacked parameter's first axis.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chestx_jax.weights.model_files import WeightsError

Shape = tuple[int, ...]

# TRANSPOSED: torch [out, ...] <-> kernel [in, out], where `...` is flattened to `in`.
SAME, TRANSPOSED = "same", "transposed"

_FIELDS = {
    "layer": r"\d+",
    "linear": "q_proj|k_proj|v_proj",
    "mlp": "gate_proj|up_proj|down_proj",
    "norm": "input|post_attention",
    "n": "[12]",
    "attn": "qkv|proj",
}

# fmt: off
TABLE: tuple[tuple[str, str, str], ...] = (
    ("model.embed_tokens.weight", "text.embed.embedding", SAME),
    ("model.layers.{layer}.self_attn.{linear}.weight", "text.layers.attn.{linear}.kernel", TRANSPOSED),
    ("model.layers.{layer}.self_attn.{linear}.bias", "text.layers.attn.{linear}.bias", SAME),
    ("model.layers.{layer}.self_attn.o_proj.weight", "text.layers.attn.o_proj.kernel", TRANSPOSED),
    ("model.layers.{layer}.mlp.{mlp}.weight", "text.layers.mlp.{mlp}.kernel", TRANSPOSED),
    ("model.layers.{layer}.{norm}_layernorm.weight", "text.layers.{norm}_norm.scale", SAME),
    ("model.norm.weight", "text.norm.scale", SAME),
    ("lm_head.weight", "lm_head.kernel", TRANSPOSED),
    ("visual.patch_embed.proj.weight", "vision.patch_embed.kernel", TRANSPOSED),  # [E,3,2,14,14] <-> [1176,E]
    ("visual.blocks.{layer}.norm{n}.weight", "vision.blocks.norm{n}.scale", SAME),
    ("visual.blocks.{layer}.norm{n}.bias", "vision.blocks.norm{n}.bias", SAME),
    ("visual.blocks.{layer}.attn.{attn}.weight", "vision.blocks.attn.{attn}.kernel", TRANSPOSED),
    ("visual.blocks.{layer}.attn.{attn}.bias", "vision.blocks.attn.{attn}.bias", SAME),
    ("visual.blocks.{layer}.mlp.fc{n}.weight", "vision.blocks.mlp.fc{n}.kernel", TRANSPOSED),
    ("visual.blocks.{layer}.mlp.fc{n}.bias", "vision.blocks.mlp.fc{n}.bias", SAME),
    ("visual.merger.ln_q.weight", "vision.merger.norm.scale", SAME),
    ("visual.merger.ln_q.bias", "vision.merger.norm.bias", SAME),
    ("visual.merger.mlp.0.weight", "vision.merger.fc1.kernel", TRANSPOSED),
    ("visual.merger.mlp.0.bias", "vision.merger.fc1.bias", SAME),
    ("visual.merger.mlp.2.weight", "vision.merger.fc2.kernel", TRANSPOSED),
    ("visual.merger.mlp.2.bias", "vision.merger.fc2.bias", SAME),
)
# fmt: on
# transformers 5 has these prefixes in memory, and some tools save them; its own files keep those of the
# table.
_IN_MEMORY = (("model.language_model.", "model."), ("model.visual.", "visual."))


@dataclass(frozen=True)
class Slot:
    """The place of one file tensor: a whole parameter, or one layer of a stacked one."""

    path: str
    layer: int | None
    layout: str


def file_key(key: str) -> str:
    """The key as files have it, for one in either style."""
    for there, here in _IN_MEMORY:
        if key.startswith(there):
            return here + key.removeprefix(there)
    return key


def keys_of(path: str, shape: Shape) -> list[tuple[str, Slot]]:
    """The file keys of a parameter, one a layer for a stacked one, in order of the layers.

    Raises:
      WeightsError: when not exactly one row matches the path.
    """
    found = [(key, match, layout) for key, own, layout in TABLE if (match := _pattern(own).fullmatch(path))]
    if len(found) != 1:
        raise WeightsError(f"parameter {path} matches {len(found)} rows of the weight table, must match one")
    key, match, layout = found[0]
    names = match.groupdict()
    if "{layer}" not in key:
        return [(key.format(**names), Slot(path, None, layout))]
    return [(key.format(layer=i, **names), Slot(path, i, layout)) for i in range(shape[0])]


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(re.sub(r"{(\w+)}", lambda m: f"(?P<{m[1]}>{_FIELDS[m[1]]})", escaped))


def file_shape(slot: Slot, shape: Shape, patch: Shape) -> Shape:
    """The shape in the file of (one layer of) a parameter.

    Args:
      shape: of the whole parameter here, stacked axis included.
      patch: [channels, frames, height, width] of a patch, which the file keeps apart in the patch embedding.
    """
    own = shape if slot.layer is None else shape[1:]
    if slot.layout == SAME:
        return own
    return (own[1], *patch) if slot.path == "vision.patch_embed.kernel" else (own[1], own[0])


def from_file(slot: Slot, tensor: np.ndarray) -> np.ndarray:
    """A view of a file's tensor with the axes of the parameter (or of one layer of it)."""
    return tensor.reshape(tensor.shape[0], -1).T if slot.layout == TRANSPOSED else tensor


def to_file(slot: Slot, value: np.ndarray, shape: Shape) -> np.ndarray:
    """The inverse of `from_file`: row-major memory, in the file's shape."""
    return np.ascontiguousarray(value.T if slot.layout == TRANSPOSED else value).reshape(shape)


def expected_keys(shapes: Mapping[str, Shape], patch: Shape) -> dict[str, tuple[Slot, Shape]]:
    """File key -> (slot, shape in the file) of a whole model.

    Args:
      shapes: dotted parameter path -> shape.
      patch: see `file_shape`.

    Raises:
      WeightsError: for a parameter without exactly one row, or two parameters with one key.
    """
    expected: dict[str, tuple[Slot, Shape]] = {}
    for path, shape in shapes.items():
        for key, slot in keys_of(path, shape):
            if key in expected:
                raise WeightsError(
                    f"{key} belongs to both {expected[key][0].path} and {path}: mistake in the table"
                )
            expected[key] = (slot, file_shape(slot, shape, patch))
    return expected


def check_keys(found: Mapping[str, Shape], expected: Mapping[str, tuple[Slot, Shape]], where: str) -> None:
    """Compare a checkpoint's keys (in file style) and shapes with a model's.

    Raises:
      WeightsError: one message with every unknown, missing and misshapen tensor.
    """
    lines = [f"unknown tensor {key} {found[key]}" for key in sorted(found.keys() - expected.keys())]
    lines += [f"missing tensor {key} {expected[key][1]}" for key in sorted(expected.keys() - found.keys())]
    lines += [
        f"misshapen tensor {key}: {found[key]} there, the config asks for {expected[key][1]}"
        for key in sorted(found.keys() & expected.keys())
        if found[key] != expected[key][1]
    ]
    if lines:
        raise WeightsError(f"{where} does not fit its config:\n  " + "\n  ".join(lines))
