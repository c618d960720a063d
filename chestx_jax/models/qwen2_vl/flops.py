"""The operations that the mathematics asks for, whatever the program does: 2 for each multiply-add of the matrix
products. Attention counts the full square of a row, as in PaLM (arXiv 2204.02311, appendix B); norms, softmax,
rotary angles and the optimizer are left out; padding counts as tokens."""

from chestx_jax.models.qwen2_vl import Qwen2VLConfig


def language_flops(config: Qwen2VLConfig, tokens: int, context: float) -> float:
    """One pass over `tokens` tokens that each attend to `context` positions, all decoder layers, without the head."""
    width, kv_width = config.hidden_size, config.num_kv_heads * config.head_dim
    weights = width * (2 * width + 2 * kv_width + 3 * config.intermediate_size)
    attention = 2 * width * context
    return 2.0 * tokens * config.num_layers * (weights + attention)


def head_flops(config: Qwen2VLConfig, tokens: int) -> float:
    """Logits of `tokens` positions."""
    return 2.0 * tokens * config.hidden_size * config.vocab_size


def vision_flops(config: Qwen2VLConfig, patches: int, row: int) -> float:
    """One pass over `patches` patches in rows of `row` (each attends to its whole row)."""
    vision = config.vision
    width = vision.embed_dim
    block = (4 + 2 * vision.mlp_ratio) * width**2 + 2 * width * row
    merged = vision.merge_unit * width
    merger = merged * (merged + config.hidden_size) / vision.merge_unit
    return 2.0 * patches * (vision.patch_dim * width + vision.depth * block + merger)


def forward_flops(config: Qwen2VLConfig, rows: int, tokens: int, patches: int) -> float:
    """Logits of every position of `rows` rows of `tokens` tokens and `patches` patches."""
    language = language_flops(config, rows * tokens, tokens) + head_flops(config, rows * tokens)
    return language + vision_flops(config, rows * patches, patches)


def update_flops(config: Qwen2VLConfig, rows: int, tokens: int, patches: int) -> float:
    """Forward and backward of everything: three times the forward pass. (The gradient of the pixels is counted
    though nobody needs it: 0.01 % of the 7B model.)"""
    return 3 * forward_flops(config, rows, tokens, patches)


def rollout_flops(
    config: Qwen2VLConfig, prompts: int, group: int, tokens: int, patches: int, new_tokens: int
) -> float:
    """Every prompt read once, then `new_tokens` for each of its `group` continuations, none ending early."""
    prefill = language_flops(config, prompts * tokens, tokens) + head_flops(config, prompts)
    prefill += vision_flops(config, prompts * patches, patches)
    drawn = prompts * group * (new_tokens - 1)  # the first token comes out of the prefill
    return prefill + language_flops(config, drawn, tokens + new_tokens / 2) + head_flops(config, drawn)


def grpo_update_flops(
    config: Qwen2VLConfig, prompts: int, group: int, tokens: int, patches: int, new_tokens: int
) -> float:
    """Forward and backward of `group` continuations a prompt, every prompt read once for its group."""
    drawn = prompts * group * new_tokens
    forward = language_flops(config, prompts * tokens, tokens) + vision_flops(
        config, prompts * patches, patches
    )
    forward += language_flops(config, drawn, tokens + new_tokens) + head_flops(config, drawn)
    return 3 * forward
