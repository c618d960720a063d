"""The page of completions: what a reader sees of a step."""

from pathlib import Path

import numpy as np

from chestx_jax.data import read_samples
from chestx_jax.data.chat import target
from chestx_jax.rewards import Rewards
from chestx_jax.rollout import Completion
from chestx_jax.training.grpo.table import write_table


def test_a_sample_that_a_step_drew_twice_is_two_cases(bench: Path, tmp_path: Path) -> None:
    sample = read_samples(bench / "binary" / "train.jsonl")[0]
    first, second = target(sample, "reason"), "<think> Nothing. </think><answer> A </answer>"
    earned = np.array([1.0, 0.0])
    completion = Completion(
        samples=(sample, sample),
        texts=(first, second),
        tokens=np.zeros((2, 3), np.int32),
        mask=np.ones((2, 3), bool),
        logprobs=np.zeros((2, 3), np.float32),
        ended=np.ones(2, bool),
    )
    rewards = Rewards(earned, {"outcome": earned}, {"outcome": (None, None)}, {"outcome": 1.0})
    out = tmp_path / "step.html"
    write_table(out, 1, completion, rewards, np.ones((2, 3)), group_size=1, prompts=2)
    page = out.read_text()
    assert f"{sample.id} (draw 2)" in page
    assert "Nothing." in page and sample.reason_steps[0] in page
