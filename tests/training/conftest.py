"""A bench of twelve phantoms and a recipe that a test can afford."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from chestx_jax.data.embedded import build_small_bench
from configs.sft import get_config


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom bench with its tokenizer."""
    out = tmp_path_factory.mktemp("embedded") / "bench"
    build_small_bench(out, source="phantom", root=None, studies=40, seed=0)
    return out


@pytest.fixture
def recipe(bench: Path) -> ConfigDict:
    """`tiny`, smaller: 56 px images, eight samples a step."""
    config = get_config("tiny")
    config.data.update(
        bench=str(bench),
        image_size=56,
        train=(("binary/train.jsonl", "reason", 0.7), ("temporal/train.jsonl", "reason", 0.3)),
        validation=(("single/validation.jsonl", "reason"),),
        buckets=((192, 16), (256, 32)),
        limit=16,
    )
    config.update(steps=4, batch_size=8, save_every=2, eval_every=4)
    return config
