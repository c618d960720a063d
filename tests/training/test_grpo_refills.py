"""What several draws of prompts leave to learn from: which prompts, and that all that belongs to one goes with it."""

import jax
import numpy as np
import pytest

from chestx_jax.parallel import make_mesh, own_rows, put_rows
from chestx_jax.rewards import Rewards
from chestx_jax.rollout import Completion
from chestx_jax.training.grpo.refills import Group, choose, first_useful
from tests.evaluation.samples import binary

SIZE, PROMPTS, TOKENS = 3, 8, 5


@pytest.mark.parametrize(
    ("useful", "kept"),
    [
        ("1111", [0, 1, 2, 3]),
        ("0101 1100", [1, 3, 4, 5]),
        (
            "0101 0000 0010",
            [0, 1, 3, 10],
        ),  # too few: the first of the others fill the batch, where they stood
        ("0000 0000", [0, 1, 2, 3]),
        ("1011 1111", [0, 2, 3, 4]),
    ],
)
def test_the_first_useful_prompts_are_kept(useful: str, kept: list[int]) -> None:
    flags = np.array([flag == "1" for flag in useful.replace(" ", "")])
    assert first_useful(flags, 4).tolist() == kept


def draw(mesh: jax.sharding.Mesh, first: int) -> Group:
    """Everything of prompt p is made of its number, and of completion g of `number * SIZE + g`."""
    numbers = first + np.arange(PROMPTS)
    rows = (numbers[:, None] * SIZE + np.arange(SIZE)).reshape(-1)
    wide = rows[:, None] + np.linspace(0, 0.5, TOKENS)
    return Group(
        prompts={
            "tokens": np.tile(numbers[:, None], 7).astype(np.int32),
            "patches": numbers.astype(np.float32),
        },
        completion=Completion(
            samples=tuple(binary(row // SIZE, id=str(row // SIZE)) for row in rows),
            texts=tuple(map(str, rows)),
            tokens=wide.astype(np.int32),
            mask=np.arange(TOKENS) <= rows[:, None] % TOKENS,
            logprobs=-wide.astype(np.float32),
            ended=rows % 2 == 0,
        ),
        scores={"old_logprobs": put_rows(mesh, wide.astype(np.float32))},
        rewards=Rewards(rows / 7, {"outcome": rows / 7}, {"outcome": ((),) * len(rows)}, {"outcome": 1.0}),
    )


@pytest.mark.parametrize("axes", [(1, 8, 1), (2, 2, 2), (1, 1, 8)])
def test_all_that_belongs_to_a_prompt_goes_with_it(axes: tuple[int, ...]) -> None:
    mesh = make_mesh(dict(zip(("replica", "fsdp", "tensor"), axes, strict=True)))
    kept = np.array([0, 1, 7, 9, 12, 13, 14, 23])
    group = choose([draw(mesh, first) for first in (0, PROMPTS, 2 * PROMPTS)], kept, SIZE, mesh)
    rows = (kept[:, None] * SIZE + np.arange(SIZE)).reshape(-1)
    wide = rows[:, None] + np.linspace(0, 0.5, TOKENS)
    done = group.completion
    np.testing.assert_array_equal(group.prompts["tokens"], np.tile(kept[:, None], 7))
    np.testing.assert_array_equal(group.prompts["patches"], kept)
    assert [int(sample.id) for sample in done.samples] == (rows // SIZE).tolist()
    assert done.texts == tuple(map(str, rows))
    np.testing.assert_array_equal(done.tokens, wide.astype(np.int32))
    np.testing.assert_array_equal(done.mask, np.arange(TOKENS) <= rows[:, None] % TOKENS)
    np.testing.assert_array_equal(done.logprobs, -wide.astype(np.float32))
    np.testing.assert_array_equal(done.ended, rows % 2 == 0)
    np.testing.assert_array_equal(own_rows(mesh, group.scores["old_logprobs"]), wide.astype(np.float32))
    np.testing.assert_array_equal(group.rewards.total, rows / 7)
    assert done.mask.dtype == done.ended.dtype == bool
