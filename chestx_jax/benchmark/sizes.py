"""The models that are measured."""

import dataclasses

from chestx_jax.models.qwen2_vl import SMALL, TINY, Qwen2VLConfig, VisionConfig


@dataclasses.dataclass(frozen=True)
class Size:
    """A model with random weights, and the side of its square images in pixels."""

    model: Qwen2VLConfig
    image_size: int

    @property
    def patches(self) -> int:
        """Of one image."""
        return (self.image_size // self.model.vision.patch_size) ** 2


def _wider(times: float) -> Qwen2VLConfig:
    """SMALL with another width; heads of the same width, as many a row as fit."""
    return dataclasses.replace(
        SMALL,
        hidden_size=int(times * SMALL.hidden_size),
        num_heads=int(times * SMALL.num_heads),
        num_kv_heads=int(times * SMALL.num_kv_heads),
        intermediate_size=int(times * SMALL.intermediate_size),
    )


SIZES = {
    "S": Size(SMALL, 112),
    "S128": Size(_wider(0.5), 112),
    "S512": Size(_wider(2), 112),
    "M": Size(
        dataclasses.replace(
            SMALL,
            hidden_size=768,
            num_layers=8,
            num_heads=12,
            num_kv_heads=4,
            intermediate_size=2048,
            vision=VisionConfig(depth=6, embed_dim=256, num_heads=8),
        ),
        224,
    ),
    "toy": Size(
        dataclasses.replace(
            TINY, vocab_size=512, num_layers=2, vision=VisionConfig(depth=1, embed_dim=32, num_heads=2)
        ),
        56,
    ),
}
