"""Sizes and token ids of Qwen2-VL, read from and written to Hugging Face's `config.json`."""

import dataclasses
from collections.abc import Mapping
from typing import Any


class ConfigError(ValueError):
    """A `config.json` field is missing, inconsistent, or asks for something this model does not compute."""


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower (`Qwen2VLVisionConfig`). Its output width is the language model's `hidden_size`."""

    depth: int = 32
    embed_dim: int = 1280
    num_heads: int = 16
    mlp_ratio: int = 4
    in_channels: int = 3
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        if self.embed_dim % (4 * self.num_heads):
            raise ConfigError(
                f"vision_config.embed_dim: {self.embed_dim} is not a multiple of 4 x {self.num_heads} heads"
            )

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch (channels x frames x height x width), 1176 for Qwen2-VL."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merge_unit(self) -> int:
        """Patches that become one token of the language model."""
        return self.spatial_merge_size**2


@dataclasses.dataclass(frozen=True)
class Qwen2VLConfig:
    """Qwen2-VL (`transformers.Qwen2VLConfig`): a decoder with M-RoPE and grouped queries, a vision tower."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    mrope_section: tuple[int, int, int]
    vision: VisionConfig = VisionConfig()
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 32768
    initializer_range: float = 0.02
    bos_token_id: int = 151643
    eos_token_id: int = 151645
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"hidden_size: {self.hidden_size} is not a multiple of {self.num_heads} heads")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_key_value_heads: {self.num_kv_heads} does not divide {self.num_heads} attention heads"
            )
        if 2 * sum(self.mrope_section) != self.head_dim:
            raise ConfigError(
                f"mrope_section: {self.mrope_section} must sum to half of head_dim {self.head_dim}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "Qwen2VLConfig":
        """Reads the flat layout of the published checkpoints and transformers 5's (`text_config`).

        Raises:
          ConfigError: a field is missing or has a value that this model does not implement; names the field.
        """
        if raw.get("model_type") != "qwen2_vl":
            raise ConfigError(f"model_type: expected 'qwen2_vl', found {raw.get('model_type')!r}")
        text, where = (raw["text_config"], "text_config.") if "text_config" in raw else (raw, "")
        _reject_unsupported(text, where)
        rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
        sections = _need(rope, "mrope_section", where + "rope_parameters.")
        theta = rope["rope_theta"] if "rope_theta" in rope else text.get("rope_theta", cls.rope_theta)
        heads = _need(text, "num_attention_heads", where)
        optional = {
            name: source[name]
            for source, names in ((text, _TEXT_OPTIONAL), (raw, _TOP_OPTIONAL))
            for name in names
            if source.get(name) is not None
        }
        return cls(
            vocab_size=_need(text, "vocab_size", where),
            hidden_size=_need(text, "hidden_size", where),
            num_layers=_need(text, "num_hidden_layers", where),
            num_heads=heads,
            num_kv_heads=text.get("num_key_value_heads") or heads,
            intermediate_size=_need(text, "intermediate_size", where),
            mrope_section=tuple(sections),
            rope_theta=float(theta),
            # transformers 4.5x wrote the flag inside text_config; either place turns tying on
            tie_word_embeddings=bool(raw.get("tie_word_embeddings") or text.get("tie_word_embeddings")),
            vision=_vision_from_hf(_need(raw, "vision_config", ""), text["hidden_size"]),
            **optional,
        )

    def to_hf(self) -> dict[str, Any]:
        """The flat `config.json` of the published checkpoints, which every reader (old or new) accepts."""
        return {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "intermediate_size": self.intermediate_size,
            "max_window_layers": self.num_layers,
            "sliding_window": self.max_position_embeddings,
            "use_sliding_window": False,
            "use_cache": True,
            "rope_theta": self.rope_theta,
            "rope_scaling": {"type": "mrope", "mrope_section": list(self.mrope_section)},
            "tie_word_embeddings": self.tie_word_embeddings,
            "vision_config": _vision_to_hf(self.vision, self.hidden_size),
            **{name: getattr(self, name) for name in _TEXT_OPTIONAL + _TOP_OPTIONAL},
        }


_TEXT_OPTIONAL = (
    "rms_norm_eps",
    "max_position_embeddings",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
)
_TOP_OPTIONAL = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_VISION_OPTIONAL = (
    "depth",
    "embed_dim",
    "num_heads",
    "mlp_ratio",
    "patch_size",
    "temporal_patch_size",
    "spatial_merge_size",
)


def _need(source: Mapping[str, Any], name: str, where: str) -> Any:
    if source.get(name) is None:
        raise ConfigError(f"{where}{name}: missing")
    return source[name]


def _must_be(source: Mapping[str, Any], name: str, where: str, allowed: tuple[Any, ...]) -> None:
    if source.get(name) is not None and source[name] not in allowed:
        raise ConfigError(f"{where}{name}: {source[name]!r} is not supported, only {allowed}")


def _reject_unsupported(text: Mapping[str, Any], where: str) -> None:
    _must_be(text, "hidden_act", where, ("silu",))
    _must_be(text, "attention_dropout", where, (0, 0.0))
    if text.get("use_sliding_window"):
        raise ConfigError(f"{where}use_sliding_window: sliding-window attention is not supported")
    for kind in text.get("layer_types") or ():
        if kind != "full_attention":
            raise ConfigError(f"{where}layer_types: {kind!r} is not supported, only 'full_attention'")
    for field in ("rope_parameters", "rope_scaling"):
        rope = text.get(field) or {}
        for name in ("rope_type", "type"):
            _must_be(rope, name, f"{where}{field}.", ("default", "mrope"))


def _vision_from_hf(raw: Mapping[str, Any], language_width: int) -> VisionConfig:
    where = "vision_config."
    _must_be(raw, "hidden_act", where, ("quick_gelu",))
    _must_be(raw, "hidden_size", where, (language_width,))
    rope = raw.get("rope_parameters") or {}
    _must_be(rope, "rope_type", where + "rope_parameters.", ("axial",))
    # the published files say in_chans, which transformers never read: it reads in_channels, or takes 3
    optional = {name: raw[name] for name in (*_VISION_OPTIONAL, "in_channels") if raw.get(name) is not None}
    return VisionConfig(rope_theta=float(rope.get("rope_theta", VisionConfig.rope_theta)), **optional)


def _vision_to_hf(vision: VisionConfig, language_width: int) -> dict[str, Any]:
    if vision.rope_theta != VisionConfig.rope_theta:
        raise ConfigError(f"vision.rope_theta: {vision.rope_theta} has no field in the flat config.json")
    return {
        **{name: getattr(vision, name) for name in _VISION_OPTIONAL},
        "hidden_act": "quick_gelu",
        "hidden_size": language_width,
        "in_chans": vision.in_channels,
        "in_channels": vision.in_channels,
        "spatial_patch_size": vision.patch_size,
    }


QWEN2_VL_2B = Qwen2VLConfig(
    vocab_size=151936,
    hidden_size=1536,
    num_layers=28,
    num_heads=12,
    num_kv_heads=2,
    intermediate_size=8960,
    mrope_section=(16, 24, 24),
    tie_word_embeddings=True,
)
QWEN2_VL_7B = Qwen2VLConfig(
    vocab_size=152064,
    hidden_size=3584,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    intermediate_size=18944,
    mrope_section=(16, 24, 24),
)
# To be trained from scratch; fit them to a tokenizer with `dataclasses.replace(TINY, vocab_size=.., ...)`.
TINY = Qwen2VLConfig(
    vocab_size=2048,
    hidden_size=128,
    num_layers=3,
    num_heads=2,
    num_kv_heads=1,
    intermediate_size=384,
    mrope_section=(8, 12, 12),
    vision=VisionConfig(depth=4, embed_dim=128, num_heads=4),
    tie_word_embeddings=True,
    initializer_range=0.06,  # at this width 0.02 leaves the eye asleep for hundreds of steps
    max_position_embeddings=4096,
    bos_token_id=0,
    eos_token_id=1,
    vision_start_token_id=2,
    vision_end_token_id=3,
    image_token_id=4,
    video_token_id=5,
)
SMALL = dataclasses.replace(
    TINY,
    vocab_size=8192,
    hidden_size=256,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=1024,
)
