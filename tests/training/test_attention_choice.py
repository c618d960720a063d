"""An attention that a run cannot use stops it before anything is loaded or compiled."""

from pathlib import Path

import pytest

from chestx_jax.models.qwen2_vl import AttentionError
from chestx_jax.training import process_reward, sft
from chestx_jax.training.grpo.run import run as run_grpo
from configs import grpo as grpo_recipe
from configs import process_reward as process_reward_recipe
from configs import sft as sft_recipe
from launch.errors import EXPECTED


@pytest.mark.parametrize(
    ("run", "recipe"),
    [(sft.run, sft_recipe), (process_reward.run, process_reward_recipe), (run_grpo, grpo_recipe)],
)
@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ("splash", "config.model.attention=splash runs on TPUs, and the devices of this mesh are CPUs"),
        (
            "cudnn",
            "config.model.attention=cudnn computes in bfloat16 or float16; config.model.dtype is float32",
        ),
        ("flash", "config.model.attention is 'flash'; it can be xla, splash, cudnn"),
    ],
)
def test_it_is_told_before_the_data_is_read(
    run, recipe, attention: str, message: str, tmp_path: Path
) -> None:
    config = recipe.get_config("tiny")
    config.data.bench = str(tmp_path / "nowhere")
    config.model.attention = attention
    with pytest.raises(AttentionError, match=message):
        run(config, tmp_path / "run")
    assert AttentionError in EXPECTED
