"""A recipe of the 7B model's width that compiles in a minute or two, and what every plan test starts from."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from chestx_jax.models.qwen2_vl import QWEN2_VL_7B
from configs import sft

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed (pip install 'chestx_jax[plan]')",
)


@pytest.fixture
def two_layers(tmp_path: Path) -> ConfigDict:
    """Two language layers and one vision layer at the 7B model's width; a directory with config.json alone."""
    vision = dataclasses.replace(QWEN2_VL_7B.vision, depth=1)
    sizes = dataclasses.replace(QWEN2_VL_7B, num_layers=2, vocab_size=4096, vision=vision)
    (tmp_path / "config.json").write_text(json.dumps(sizes.to_hf()))
    config = sft.get_config("qwen2_vl_7b")
    config.model.pretrained = str(tmp_path)
    config.data.buckets = ((512, 256),)
    config.update(batch_size=16, steps=100)
    return config
