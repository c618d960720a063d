"""The learner: a killed run against an unbroken one, refills, several updates, and configs that make no sense.

Random weights earn nothing from the real rewards, so a plug-in pays for letters: every group has spread.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from chestx_jax.rewards import RewardError
from chestx_jax.training.grpo import learner
from chestx_jax.training.grpo.run import run
from chestx_jax.training.grpo.settings import check
from chestx_jax.training.state import TrainingError
from chestx_jax.weights import Checkpoints, load_pretrained
from chestx_jax.weights.pretrained import flat_params
from configs.grpo import get_config

PLUG_IN = """
from chestx_jax.rewards import StepReward, Stepwise

def letters(prompts, completions, **columns):
    half = [len(text) // 2 for text in completions]
    worth = lambda text: text.count("e") / (1 + len(text))
    return [
        Stepwise(worth(text), [StepReward(0, at, worth(text[:at])), StepReward(at, len(text), worth(text[at:]))])
        for text, at in zip(completions, half)
    ]

def nothing(prompts, completions, **columns):
    return [0.5 for _ in completions]

def long_questions(prompts, completions, *, question, **columns):
    return [len(text) if "lung" in asked else 0.0 for text, asked in zip(completions, question)]
"""


def component(function: str, weight: float = 1.0) -> dict[str, Any]:
    return dict(function=function, weight=weight, clip=(-1.0, 1000.0), schedule=())


@pytest.fixture
def recipe(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigDict:
    (tmp_path / "letter_rewards.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = get_config("tiny")
    config.model.arch = "tiny"
    config.data.update(
        bench=str(bench),
        image_size=56,
        train=(("binary/train.jsonl", "reason", 1.0),),
        validation=(("single/validation.jsonl", "reason"),),
        buckets=((128, 16),),
        limit=16,
    )
    config.rollout.update(group_size=4, max_new_tokens=8, tensor=4)
    config.rewards = ConfigDict(dict(letters=component("letter_rewards.letters")))
    config.mesh.update(fsdp=2, tensor=4)
    config.update(steps=3, batch_size=2, save_every=2, eval_every=3, table_every=3, validation_batch=4)
    return config


def final_params(workdir: Path) -> dict[str, np.ndarray]:
    return {path: np.asarray(value) for path, value in flat_params(load_pretrained(workdir)).items()}


def rows(workdir: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in row.items() if "seconds" not in key and not key.startswith("perf/")}
        for row in found
    ]


def test_a_killed_run_ends_where_an_unbroken_one_does(
    recipe: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kill -9 in step 3: the same rewards and parameters, bit for bit."""
    run(recipe, tmp_path / "unbroken")
    write_table = learner.write_table

    def die(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learner, "write_table", die)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "killed")
    monkeypatch.setattr(learner, "write_table", write_table)
    assert Checkpoints(tmp_path / "killed", keep=9).steps() == (2,)
    run(recipe, tmp_path / "killed")
    assert rows(tmp_path / "killed") == rows(tmp_path / "unbroken")
    ours, theirs = final_params(tmp_path / "killed"), final_params(tmp_path / "unbroken")
    for path, value in theirs.items():
        np.testing.assert_array_equal(ours[path], value, err_msg=path)

    first, *_, last = rows(tmp_path / "unbroken")
    assert first["train/advantage/mean_abs"] > 0 and first["train/grad_norm"] > 0
    assert first["train/kl"] == 0 and last["eval/ended"] <= 1  # the reference is the start
    assert first["train/sampler_gap_max"] < 1e-4
    page = (tmp_path / "unbroken" / "completions" / "step-000003.html").read_text()
    assert "completion 4" in page and "advantage" in page


def test_several_updates_a_rollout_with_step_credit_and_accumulation(
    recipe: ConfigDict, tmp_path: Path
) -> None:
    """The first update of a rollout has ratio 1; the second minibatch is off-policy and its ratio moves."""
    recipe.advantage.credit = "step"
    recipe.rewards.format = ConfigDict(component("format"))
    recipe.optimizer.peak = 1e-2
    recipe.update(steps=1, epochs=2, minibatches=2, accumulation=2, batch_size=8, eval_every=9)
    run(recipe, tmp_path / "run")
    (row, *_) = rows(tmp_path / "run")
    assert row["train/ratio"] != 1 and row["train/policy_kl"] > 0
    assert row["train/ratio_max"] > 1


def test_groups_without_spread_are_replaced(recipe: ConfigDict, tmp_path: Path) -> None:
    """Only questions about lungs have spread here; what is drawn is counted, what is left fills the batch."""
    recipe.rewards = ConfigDict(dict(lung=component("letter_rewards.long_questions")))
    recipe.rollout.refills = 2
    recipe.update(steps=2, eval_every=9, save_every=9)
    run(recipe, tmp_path / "run")
    first, second, *_ = rows(tmp_path / "run")
    assert first["train/prompts_drawn"] + second["train/prompts_drawn"] > 4
    assert min(first["train/zero_spread_share"], second["train/zero_spread_share"]) < 1


def test_without_spread_nothing_is_learnt(recipe: ConfigDict, tmp_path: Path) -> None:
    recipe.rewards = ConfigDict(dict(nothing=component("letter_rewards.nothing")))
    recipe.objective.update(kl_weight=0.0, entropy_weight=0.0)
    recipe.update(steps=1, eval_every=9)
    run(recipe, tmp_path / "run")
    (row, *_) = rows(tmp_path / "run")
    assert row["train/zero_spread_share"] == 1 and row["train/grad_norm"] == 0
    assert row["train/kl"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rollout.group_size": 1}, "group_size is 1"),
        ({"rollout.temperature": 0.0}, "no spread"),
        ({"rollout.top_p": 0.0}, "top_p"),
        ({"objective.clip_low": 2.0}, "clip_low"),
        ({"advantage.estimator": "gae"}, "gae"),
        ({"advantage.credit": "token"}, "credit"),
        ({"minibatches": 3}, "cannot be divided"),
        (
            {"data.validation": (("a.jsonl", "answer"),), "rewards.letters.function": "format"},
            "mode 'answer'",
        ),
        ({"rollout.refills": 1, "data.buckets": ((8, 4), (16, 4))}, "single one"),
        ({"rewards.letters.weight": 0.0}, "every weight is 0"),
    ],
)
def test_nonsense_is_refused_before_anything_is_loaded(
    recipe: ConfigDict, change: dict[str, Any], message: str
) -> None:
    recipe.update_from_flattened_dict(change)
    with pytest.raises(TrainingError, match=message):
        check(recipe)


def test_prompts_that_the_mesh_cannot_share_are_refused(recipe: ConfigDict, tmp_path: Path) -> None:
    recipe.batch_size = 3
    with pytest.raises(TrainingError, match="3 prompts at a time"):
        run(recipe, tmp_path / "run")


def test_no_reward_is_refused(recipe: ConfigDict) -> None:
    recipe.rewards = ConfigDict()
    with pytest.raises(RewardError, match="there is none"):
        check(recipe)


def test_the_same_run_on_eight_devices(recipe: ConfigDict, tmp_path: Path) -> None:
    """The first rollout of a seed is the same on any mesh, and so are its rewards; the updates agree to 1e-5."""
    assert jax.device_count() == 8
    found = []
    for name, axes in (("one", (1, 1, 8)), ("many", (2, 2, 2))):
        recipe.mesh.update(dict(zip(("replica", "fsdp", "tensor"), axes, strict=True)))
        recipe.update(steps=1, batch_size=4, eval_every=9)
        run(recipe, tmp_path / name)
        found.append(rows(tmp_path / name)[0])
    for name in ("loss", "reward/mean", "grad_norm"):
        np.testing.assert_allclose(found[0][f"train/{name}"], found[1][f"train/{name}"], rtol=1e-4)
