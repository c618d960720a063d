"""config.json: both layouts in, the flat one out, and loud refusals."""

import copy
import dataclasses
import json

import pytest

from chestx_jax.models.qwen2_vl import QWEN2_VL_2B, QWEN2_VL_7B, SMALL, TINY, ConfigError, Qwen2VLConfig

PRESETS = {"2b": QWEN2_VL_2B, "7b": QWEN2_VL_7B, "tiny": TINY, "small": SMALL}


def nested(config: Qwen2VLConfig) -> dict:
    """The layout that transformers 5 writes."""
    flat = config.to_hf()
    top = {"model_type", "tie_word_embeddings", "architectures", "vision_config"}
    top |= {"image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"}
    out = {key: flat.pop(key) for key in top}
    rope = {"rope_type": "default", "rope_theta": flat.pop("rope_theta")}
    rope["mrope_section"] = flat.pop("rope_scaling")["mrope_section"]
    layer_types = ["full_attention"] * config.num_layers
    out["text_config"] = {**flat, "rope_parameters": rope, "layer_types": layer_types, "sliding_window": None}
    out["vision_config"]["rope_parameters"] = {"rope_type": "axial", "rope_theta": 10000.0}
    return out


@pytest.mark.parametrize("size", ["2b", "7b"])
def test_published_files_are_the_presets(shared_data, size):
    raw = json.loads((shared_data / "qwen2vl" / f"qwen2-vl-{size}" / "config.json").read_text())
    assert Qwen2VLConfig.from_hf(raw) == PRESETS[size]
    ours, left_out = PRESETS[size].to_hf(), {"vision_token_id", "torch_dtype", "transformers_version"}
    assert raw.pop("vision_config").items() <= ours.pop("vision_config").items()
    assert {key: ours.get(key) for key in raw if key not in left_out} == {
        key: value for key, value in raw.items() if key not in left_out
    }


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_round_trips(config):
    assert Qwen2VLConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config
    assert Qwen2VLConfig.from_hf(json.loads(json.dumps(nested(config)))) == config


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("model_type", "qwen2_5_vl", "model_type"),
        ("text_config.hidden_act", "gelu", "text_config.hidden_act"),
        ("text_config.use_sliding_window", True, "text_config.use_sliding_window"),
        ("text_config.layer_types", ["sliding_attention"], "text_config.layer_types"),
        ("text_config.attention_dropout", 0.1, "text_config.attention_dropout"),
        ("text_config.rope_parameters.rope_type", "yarn", "text_config.rope_parameters.rope_type"),
        ("text_config.rope_parameters.mrope_section", None, "text_config.rope_parameters.mrope_section"),
        ("text_config.rope_parameters.mrope_section", [1, 2, 3], "mrope_section"),
        ("text_config.hidden_size", None, "text_config.hidden_size"),
        ("text_config.num_key_value_heads", 3, "num_key_value_heads"),
        ("text_config.num_attention_heads", 5, "hidden_size"),
        ("vision_config.hidden_act", "silu", "vision_config.hidden_act"),
        ("vision_config.hidden_size", 7, "vision_config.hidden_size"),
        ("vision_config.embed_dim", 130, "vision_config.embed_dim"),
        ("vision_config.rope_parameters.rope_type", "default", "vision_config.rope_parameters.rope_type"),
    ],
)
def test_unsupported_settings_name_their_field(path, value, field):
    raw = copy.deepcopy(nested(TINY))
    *parents, leaf = path.split(".")
    place = raw
    for parent in parents:
        place = place[parent]
    place[leaf] = value
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        Qwen2VLConfig.from_hf(raw)


def test_flat_layout_refuses_too():
    raw = TINY.to_hf()
    with pytest.raises(ConfigError, match="use_sliding_window"):
        Qwen2VLConfig.from_hf({**raw, "use_sliding_window": True})
    with pytest.raises(ConfigError, match=r"rope_scaling\.type"):
        Qwen2VLConfig.from_hf({**raw, "rope_scaling": {"type": "linear", "factor": 2.0}})


def test_a_setting_without_a_place_in_the_file_is_an_error():
    odd = dataclasses.replace(TINY, vision=dataclasses.replace(TINY.vision, rope_theta=5000.0))
    with pytest.raises(ConfigError, match="rope_theta"):
        odd.to_hf()
