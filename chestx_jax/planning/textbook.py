"""The operations that training asks for, given what learns; a pass and its parts are counted in `flops`.

A product x W costs its forward pass once more for the gradient of x, where something before it learns, and once more
for the gradient of W, where W learns. So full fine-tuning costs three times the forward pass, adapters in the language
model twice its part and the vision tower once (their own products, 0.5 % at rank 16, are left out).
"""

import dataclasses
from collections.abc import Iterable

from flax import traverse_util

from chestx_jax.models.qwen2_vl import Qwen2VLConfig
from chestx_jax.models.qwen2_vl.flops import head_flops, language_flops, vision_flops
from chestx_jax.training.state import Params


@dataclasses.dataclass(frozen=True)
class Passes:
    """How often each part's forward pass is paid."""

    vision: int = 1
    language: int = 1
    head: int = 1

    @classmethod
    def of(cls, trainable: Params, tied: bool) -> "Passes":
        """Of one training step in which `trainable` (nested parameters) learn.

        Args:
          tied: whether the head is the embedding's table.
        """
        paths = [".".join(map(str, path)) for path in traverse_util.flatten_dict(trainable)]
        below = _any(paths, "vision.") or _any(paths, "text.")
        head = "text.embed.embedding" if tied else "lm_head.kernel"
        return cls(
            vision=1 + _any(paths, "vision.") + _any(paths, "vision.", ".kernel"),
            language=1 + below + _any(paths, "text.layers.", ".kernel"),
            head=1 + below + _any(paths, head),
        )


def _any(paths: Iterable[str], start: str, end: str = "") -> bool:
    return any(path.startswith(start) and path.endswith(end) for path in paths)


def rows_flops(config: Qwen2VLConfig, passes: Passes, rows: int, tokens: int, patches: int) -> float:
    """Samples in rows of their own, with the logits of every position."""
    return (
        passes.vision * vision_flops(config, rows * patches, patches)
        + passes.language * language_flops(config, rows * tokens, tokens)
        + passes.head * head_flops(config, rows * tokens)
    )


def groups_flops(
    config: Qwen2VLConfig,
    passes: Passes,
    prompts: int,
    group: int,
    tokens: int,
    patches: int,
    new_tokens: int,
) -> float:
    """`group` continuations a prompt, each prompt read once for its group; logits of the continuations alone."""
    drawn = prompts * group * new_tokens
    language = language_flops(config, prompts * tokens, tokens)
    language += language_flops(config, drawn, tokens + new_tokens)
    return (
        passes.vision * vision_flops(config, prompts * patches, patches)
        + passes.language * language
        + passes.head * head_flops(config, drawn)
    )
