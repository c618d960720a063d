"""The same tiny models in transformers. Needs torch."""

from collections.abc import Mapping

import numpy as np
import torch
from transformers import Qwen2VLConfig as HFConfig
from transformers import Qwen2VLForConditionalGeneration

from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from tests.models.cases import IMAGE

_TEXT = "model.language_model."
_NAMES = {
    "text.embed.embedding": _TEXT + "embed_tokens.weight",
    "text.norm.scale": _TEXT + "norm.weight",
    "lm_head.kernel": "lm_head.weight",
    "vision.patch_embed.kernel": "model.visual.patch_embed.proj.weight",
    "vision.merger.norm.scale": "model.visual.merger.ln_q.weight",
    "vision.merger.norm.bias": "model.visual.merger.ln_q.bias",
    "vision.merger.fc1.kernel": "model.visual.merger.mlp.0.weight",
    "vision.merger.fc1.bias": "model.visual.merger.mlp.0.bias",
    "vision.merger.fc2.kernel": "model.visual.merger.mlp.2.weight",
    "vision.merger.fc2.bias": "model.visual.merger.mlp.2.bias",
}
_PARTS = {
    "attn": "self_attn",
    "input_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
}


def hf_name(path: str) -> str:
    """transformers' in-memory name; `{}` stands for the layer."""
    if path in _NAMES:
        return _NAMES[path]
    tower, _, *parts, leaf = path.split(".")
    leaf = "bias" if leaf == "bias" else "weight"
    if tower == "vision":
        return ".".join(["model.visual.blocks.{}", *parts, leaf])
    return ".".join([_TEXT + "layers.{}", *(_PARTS.get(part, part) for part in parts), leaf])


def to_ours(path: str, tensor: np.ndarray) -> np.ndarray:
    """One torch tensor (of one layer) in our layout."""
    if not path.endswith("kernel"):
        return tensor
    return tensor.reshape(tensor.shape[0], -1).T


def to_torch(path: str, array: np.ndarray, shape: torch.Size) -> torch.Tensor:
    array = array.T if path.endswith("kernel") else array
    return torch.from_numpy(np.ascontiguousarray(array)).reshape(shape)


def build_torch(
    config: Qwen2VLConfig, weights: Mapping[str, np.ndarray], attention: str = "eager"
) -> Qwen2VLForConditionalGeneration:
    hf = HFConfig(**config.to_hf())
    model = Qwen2VLForConditionalGeneration._from_config(hf, attn_implementation=attention).float().eval()
    state = dict(model.named_parameters())
    left = set(state)
    with torch.no_grad():
        for path, array in weights.items():
            stacked = "{}" in hf_name(path)
            for layer, part in enumerate(array if stacked else [array]):
                name = hf_name(path).format(layer)
                state[name].copy_(to_torch(path, part, state[name].shape))
                left.remove(name)
    assert not left, left
    return model


def torch_gradients(
    model: Qwen2VLForConditionalGeneration, paths: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Gradients by our paths and in our layout; zero where torch has none."""
    state = dict(model.named_parameters())
    out = {}
    for path, like in paths.items():
        stacked = "{}" in hf_name(path)
        layers = []
        for layer in range(like.shape[0] if stacked else 1):
            param = state[hf_name(path).format(layer)]
            grad = torch.zeros_like(param) if param.grad is None else param.grad
            layers.append(to_ours(path, grad.float().numpy()))
        out[path] = np.stack(layers) if stacked else layers[0]
    return out


def torch_inputs(rows: list[dict], batch: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """What `Qwen2VLForConditionalGeneration.forward` wants for a batch that `pad_rows` made of `rows`."""
    tokens = torch.from_numpy(batch["tokens"]).long()
    inputs = {"input_ids": tokens, "attention_mask": torch.from_numpy(batch["segments"] > 0).long()}
    grids = [grid for row in rows for grid in row["grids"]]
    if grids:
        inputs["pixel_values"] = torch.from_numpy(np.concatenate([row["patches"] for row in rows]))
        inputs["image_grid_thw"] = torch.tensor(grids)
        inputs["mm_token_type_ids"] = (tokens == IMAGE).int()
    return inputs


def torch_loss(logits: torch.Tensor, batch: Mapping[str, np.ndarray]) -> torch.Tensor:
    mask = torch.from_numpy(batch["loss_mask"][:, 1:])
    targets = torch.from_numpy(batch["tokens"][:, 1:]).long()
    return torch.nn.functional.cross_entropy(logits[:, :-1][mask], targets[mask])


def torch_greedy(model: Qwen2VLForConditionalGeneration, row: dict, new_tokens: int) -> np.ndarray:
    """`generate` on one sample alone, without padding; never stops early and never draws an image token."""
    batch = {"tokens": row["tokens"][None], "segments": row["segments"][None]}
    forbidden = [IMAGE, model.config.video_token_id]
    with torch.no_grad():
        out = model.generate(
            **torch_inputs([row], batch),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            suppress_tokens=forbidden,
            eos_token_id=None,
            pad_token_id=0,
        )
    return out[0, len(row["tokens"]) :].numpy()
