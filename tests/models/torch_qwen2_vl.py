"""The same tiny models in transformers. Needs torch."""

from collections.abc import Mapping

import numpy as np
import torch
from transformers import Qwen2VLConfig as HFConfig
from transformers import Qwen2VLForConditionalGeneration

from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from chestx_jax.weights.table import file_key, from_file, keys_of, to_file
from tests.models.cases import IMAGE


def file_state(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Parameters by their names in files, which are those of the weight table."""
    return {file_key(name): param for name, param in model.named_parameters()}


def build_torch(
    config: Qwen2VLConfig, weights: Mapping[str, np.ndarray], attention: str = "eager"
) -> Qwen2VLForConditionalGeneration:
    hf = HFConfig(**config.to_hf())
    model = Qwen2VLForConditionalGeneration._from_config(hf, attn_implementation=attention).float().eval()
    state = file_state(model)
    with torch.no_grad():
        for path, array in weights.items():
            for key, slot in keys_of(path, array.shape):
                param = state.pop(key)
                part = array if slot.layer is None else array[slot.layer]
                param.copy_(torch.from_numpy(to_file(slot, part, tuple(param.shape))))
    assert not state, state.keys()
    return model


def torch_gradients(
    model: Qwen2VLForConditionalGeneration, weights: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Gradients by our paths and in our layout; zero where torch has none."""
    state, out = file_state(model), {}
    for path, like in weights.items():
        out[path] = np.zeros_like(like)
        for key, slot in keys_of(path, like.shape):
            if (grad := state[key].grad) is not None:
                out[path][... if slot.layer is None else slot.layer] = from_file(slot, grad.numpy())
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
