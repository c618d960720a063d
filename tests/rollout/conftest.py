"""A processor of 400 tokens, a random model that fits it, and samples of one and two pictures."""

from pathlib import Path

import pytest
from flax import nnx

from chestx_jax.data import Processor, Sample
from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig, VisionConfig
from tests.data.makers import SIZE, make_processor_dir, make_sample


@pytest.fixture(scope="session")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return Processor.from_pretrained(
        make_processor_dir(tmp_path_factory.mktemp("processor")), image_size=SIZE
    )


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    root: Path = tmp_path_factory.mktemp("pictures")
    questions = [f"Does this chest X-ray show edema? {'edema ' * i}" for i in range(7)]
    return [
        make_sample(root, f"sample-{i}", images=1 + i % 2, question=question)
        for i, question in enumerate(questions)
    ]


@pytest.fixture(scope="session")
def policy(processor: Processor) -> Qwen2VL:
    """What it writes means nothing, but it is far from even, and ends now and then."""
    config = Qwen2VLConfig(
        vocab_size=processor.vocab_size + 8,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=96,
        mrope_section=(2, 3, 3),
        vision=VisionConfig(depth=1, embed_dim=32, num_heads=2),
        rope_theta=10000.0,
        initializer_range=0.2,
        **processor.token_ids(),
    )
    return Qwen2VL(config, rngs=nnx.Rngs(params=0))
