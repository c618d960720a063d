"""Makes parameter_names.json.gz: every tensor's key and shape in the files that transformers saves.

python -m tests.golden.make_parameter_names        (needs torch; 7B costs no memory, it stays on the meta device)
"""

import gzip
import json
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import Qwen2VLConfig as HFConfig
from transformers import Qwen2VLForConditionalGeneration
from transformers.core_model_loading import revert_weight_conversion

from chestx_jax.models.qwen2_vl import QWEN2_VL_2B, QWEN2_VL_7B
from tests.weights.tiny import TIED, UNTIED

OUT = Path(__file__).with_name("parameter_names.json.gz")
MODELS = {"tied": TIED, "untied": UNTIED, "qwen2_vl_2b": QWEN2_VL_2B, "qwen2_vl_7b": QWEN2_VL_7B}


def file_tensors(config: dict) -> dict[str, list[int]]:
    """File key -> shape, as transformers would save the model that a config.json describes."""
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(HFConfig(**config))
    state = revert_weight_conversion(model, model.state_dict())
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")  # saving drops the second name of a shared tensor
    return {key: list(value.shape) for key, value in sorted(state.items())}


def saved_tensors(config: dict) -> dict[str, list[int]]:
    """The same from a file that transformers really wrote."""
    with tempfile.TemporaryDirectory() as directory:
        Qwen2VLForConditionalGeneration(HFConfig(**config)).save_pretrained(directory)
        with safe_open(Path(directory) / "model.safetensors", "np") as file:
            return {key: file.get_slice(key).get_shape() for key in sorted(file.keys())}


def main() -> None:
    names = {name: file_tensors(config.to_hf()) for name, config in MODELS.items()}
    for name in ("tied", "untied"):
        assert names[name] == saved_tensors(MODELS[name].to_hf()), name
    with gzip.GzipFile(OUT, "wb", mtime=0) as file:
        file.write(json.dumps(names, separators=(",", ":")).encode())
    print(f"{OUT}: { ({name: len(tensors) for name, tensors in names.items()}) }")


if __name__ == "__main__":
    main()
