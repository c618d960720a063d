"""Tiny checkpoints in the layout of transformers, made with the safetensors library and without our code."""

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig, VisionConfig

NAMES = Path(__file__).parents[1] / "golden" / "parameter_names.json.gz"

UNTIED = Qwen2VLConfig(
    vocab_size=200,
    hidden_size=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=96,
    mrope_section=(2, 3, 3),
    vision=VisionConfig(depth=2, embed_dim=32, num_heads=2),
    max_position_embeddings=512,
    bos_token_id=0,
    eos_token_id=1,
    vision_start_token_id=2,
    vision_end_token_id=3,
    image_token_id=4,
    video_token_id=5,
)
TIED = dataclasses.replace(UNTIED, tie_word_embeddings=True)


def golden_names(model: str) -> dict[str, tuple[int, ...]]:
    """File key -> shape as transformers has them; `model` is tied, untied, qwen2_vl_2b or qwen2_vl_7b."""
    names = json.loads(gzip.decompress(NAMES.read_bytes()))[model]
    return {key: tuple(shape) for key, shape in names.items()}


def random_tensors(tied: bool, dtype: Any, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        key: (0.02 * rng.standard_normal(shape)).astype(dtype)
        for key, shape in golden_names("tied" if tied else "untied").items()
    }


def write_hf(
    directory: Path, tensors: dict[str, np.ndarray], tied: bool, shards: int = 1, **config: Any
) -> Path:
    """A Hugging Face directory; its config.json has odd spacing and a field that nobody knows, to be kept."""
    directory.mkdir(parents=True)
    dtype = next(iter(tensors.values())).dtype.name
    fields = {
        **(TIED if tied else UNTIED).to_hf(),
        "torch_dtype": dtype,
        "somebody's field": [1, 2.50],
        **config,
    }
    (directory / "config.json").write_text(json.dumps(fields, indent=3) + "\n\n")
    (directory / "generation_config.json").write_text('{"eos_token_id": [1, 0]}')
    (directory / "preprocessor_config.json").write_text('{"patch_size": 14}')
    keys = sorted(tensors)
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory
    weight_map = {}
    for i in range(shards):
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {key: tensors[key] for key in keys[i::shards]}
        save_file(part, directory / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def random_model(config: Qwen2VLConfig = UNTIED, seed: int = 0, **kwargs: Any) -> Qwen2VL:
    """Drawn with numpy: the model's own initialisation takes seconds to compile."""
    rng = np.random.default_rng(seed)
    abstract = nnx.eval_shape(lambda: Qwen2VL(config, rngs=nnx.Rngs(0), **kwargs))
    graphdef, state = nnx.split(abstract)
    draw = jax.tree.map(
        lambda leaf: jnp.asarray(0.02 * rng.standard_normal(leaf.shape), leaf.dtype), nnx.to_pure_dict(state)
    )
    return nnx.merge(graphdef, nnx.State(draw))
