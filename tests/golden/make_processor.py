"""Makes processor.npz: what transformers' Qwen2-VL code gives for positions and patches. Needs torch.

python -m tests.golden.make_processor
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

IMAGE, START, END = 190, 188, 189
ROPE_GRIDS = ([], [(1, 4, 4)], [(1, 8, 8), (1, 4, 6)], [(1, 2, 2), (1, 6, 2), (1, 4, 10)])
IMAGE_SHAPES = ((56, 56), (60, 100), (84, 56), (30, 40))


def rope_index(torch, tokens, grids):
    """`Qwen2VLModel.get_rope_index` for one sequence: positions [3, T] and delta."""
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

    # the method reads nothing of the model but the merge size, so a stand-in spares us the weights
    model = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    model.get_vision_position_ids = Qwen2VLModel.get_vision_position_ids.__get__(model)
    ids = torch.tensor(np.asarray(tokens))[None]
    grid = torch.tensor([list(map(int, g)) for g in grids]) if len(grids) else None
    positions, delta = Qwen2VLModel.get_rope_index(model, ids, (ids == IMAGE).int(), image_grid_thw=grid)
    return positions[:, 0].numpy(), int(delta)


def rope_cases(torch) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {"rope_cases": np.array(len(ROPE_GRIDS))}
    for case, grids in enumerate(ROPE_GRIDS):
        tokens = [5, 6, 7]
        for t, h, w in grids:
            tokens += [START] + [IMAGE] * (t * h * w // 4) + [END]
        tokens += [8, 9]
        positions, delta = rope_index(torch, tokens, grids)
        out |= {
            f"rope{case}_tokens": np.array(tokens, np.int32),
            f"rope{case}_grids": np.array(grids, np.int32).reshape(-1, 3),
            f"rope{case}_positions": positions.astype(np.int32),
            f"rope{case}_delta": np.array(delta),
        }
    return out


def patch_cases() -> dict[str, np.ndarray]:
    from PIL import Image
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 4)
    rng = np.random.default_rng(0)
    out = {}
    for case, shape in enumerate(IMAGE_SHAPES):
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        made = processor(images=[Image.fromarray(image)], return_tensors="np")
        # every fifth number is enough to catch any order, and keep the file small
        values = made["pixel_values"][:, ::5].astype(np.float32)
        out |= {
            f"patch{case}_image": image,
            f"patch{case}_values": values,
            f"patch{case}_grid": made["image_grid_thw"],
        }
    return out


def main() -> None:
    import torch

    path = Path(__file__).with_name("processor.npz")
    np.savez_compressed(path, **rope_cases(torch), **patch_cases())
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
