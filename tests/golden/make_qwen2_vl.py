"""Makes qwen2_vl.npz: what transformers gives for the tiny cases of tests/models/cases.py. Needs torch.

Weights and inputs come from seeds (numpy); only outputs are stored: positions, logits of the real tokens, 64
greedy tokens, and of every gradient its norm and its products with eight fixed random vectors.

python -m tests.golden.make_qwen2_vl
"""

from pathlib import Path

import numpy as np
import torch

from tests.models import cases
from tests.models import torch_qwen2_vl as reference

NEW_TOKENS = 64


def record(case: cases.Case) -> dict[str, np.ndarray]:
    weights = cases.numpy_weights(case.config)
    rows, batch = cases.unpadded_rows(case), cases.make_batch(case)
    inputs = reference.torch_inputs(rows, batch)
    model = reference.build_torch(case.config, weights)
    logits = model(**inputs).logits
    reference.torch_loss(logits, batch).backward()
    gradients = reference.torch_gradients(model, weights)
    out = {
        "checksum": cases.checksum(weights, batch),
        "logits": logits.detach().numpy()[batch["segments"] > 0],
        "gradients": np.stack([cases.fingerprint(path, gradients[path]) for path in sorted(gradients)]),
        "greedy": np.stack([reference.torch_greedy(model, row, NEW_TOKENS) for row in rows]).astype(np.int16),
    }
    if "image_grid_thw" in inputs:
        inputs.pop("pixel_values")
        out["positions"] = model.model.get_rope_index(**inputs)[0].permute(1, 0, 2).numpy().astype(np.int16)
    return out


def main() -> None:
    torch.manual_seed(0)
    arrays = {f"{case.name}/{name}": a for case in cases.CASES for name, a in record(case).items()}
    path = Path(__file__).with_name("qwen2_vl.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
