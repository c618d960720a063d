"""Fine-tuning: exact accumulation, any mesh, resuming bit for bit, and stopping for good reasons."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from chestx_jax.data.pipeline import PipelineError
from chestx_jax.training import sft
from chestx_jax.training.loop import Preempted
from chestx_jax.training.state import TrainingError
from chestx_jax.weights import CheckpointError, Checkpoints, load_pretrained
from chestx_jax.weights.pretrained import flat_params


def final_params(workdir: Path) -> dict[str, np.ndarray]:
    return {path: np.asarray(value) for path, value in flat_params(load_pretrained(workdir)).items()}


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for path in ours:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)


def metrics(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_times(workdir: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if not key.startswith("perf/")} for row in metrics(workdir)
    ]


@pytest.fixture
def unbroken(recipe: ConfigDict, tmp_path: Path) -> Path:
    recipe.profile_steps = "3:4"
    sft.run(recipe, tmp_path / "unbroken")
    recipe.profile_steps = ""
    return tmp_path / "unbroken"


def test_a_run_leaves_what_it_takes_to_understand_and_use_it(recipe: ConfigDict, unbroken: Path) -> None:
    assert json.loads((unbroken / "config.json").read_text())["batch_size"] == 8
    (run,) = json.loads((unbroken / "run.json").read_text())
    assert run["git_revision"] and run["versions"]["jax"] == jax.__version__
    assert list((unbroken / "tensorboard").iterdir())
    assert json.loads((unbroken / "model" / "chestx_jax.json").read_text()) == {"image_size": 56}
    assert list((unbroken / "profile").rglob("*.xplane.pb"))
    rows = metrics(unbroken)
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4]
    assert {"perf/tokens_per_second", "perf/goodput", "perf/seconds/step"} < set(rows[3])
    assert [row["step"] for row in rows if "eval/loss" in row] == [4]
    assert rows[-1]["eval/loss"] < 8 and rows[3]["train/loss"] < rows[0]["train/loss"]


@pytest.mark.parametrize("stop_at", [1, 3])
def test_after_sigterm_the_same_line_ends_where_an_unbroken_run_does(
    recipe: ConfigDict, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """The signal comes while a step is under way; the run saves, stops, and goes on bit for bit."""
    broken = tmp_path / "broken"
    put_batch, calls = sft.put_batch, []

    def put_and_terminate(mesh: Any, batch: Any) -> Any:
        calls.append(batch)
        if len(calls) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return put_batch(mesh, batch)

    monkeypatch.setattr(sft, "put_batch", put_and_terminate)
    with pytest.raises(Preempted, match=f"step {stop_at}"):
        sft.run(recipe, broken)
    monkeypatch.undo()
    sft.run(recipe, broken)
    assert_same(final_params(broken), final_params(unbroken))
    assert without_times(broken) == without_times(unbroken)


def test_a_run_that_died_after_a_checkpoint_resumes_from_it(
    recipe: ConfigDict, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kill -9 at step 4: step 2 is on disk, step 3 is lost and done again."""
    killed = tmp_path / "killed"
    put_batch, calls = sft.put_batch, []

    def put_until_death(mesh: Any, batch: Any) -> Any:
        calls.append(batch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return put_batch(mesh, batch)

    monkeypatch.setattr(sft, "put_batch", put_until_death)
    with pytest.raises(KeyboardInterrupt):
        sft.run(recipe, killed)
    monkeypatch.undo()
    assert Checkpoints(killed, keep=9).steps() == (2,)
    sft.run(recipe, killed)
    assert_same(final_params(killed), final_params(unbroken))
    assert [row["step"] for row in metrics(killed) if "train/loss" in row] == [1, 2, 3, 4]


def test_accumulation_does_not_change_the_update(recipe: ConfigDict, tmp_path: Path) -> None:
    """Micro-batches hold different numbers of target tokens; the denominators are exact all the same."""
    losses = []
    for accumulation in (1, 4):
        recipe.update(accumulation=accumulation, steps=2, batch_size=32)
        recipe.data.limit = 0
        sft.run(recipe, tmp_path / str(accumulation))
        losses.append([row for row in metrics(tmp_path / str(accumulation)) if "train/loss" in row])
    for whole, parts in zip(*losses, strict=True):
        np.testing.assert_allclose(parts["train/loss"], whole["train/loss"], rtol=1e-5)
        np.testing.assert_allclose(parts["train/grad_norm"], whole["train/grad_norm"], rtol=1e-4)


@pytest.mark.parametrize("axes", [(1, 4, 2), (2, 2, 2), (1, 1, 8)])
def test_any_mesh_gives_the_losses_of_one_device(
    recipe: ConfigDict, tmp_path: Path, axes: tuple[int, ...]
) -> None:
    seen = []
    for name, (replica, fsdp, tensor) in (("many", axes), ("default", (1, 8, 1))):
        recipe.mesh.update(replica=replica, fsdp=fsdp, tensor=tensor)
        recipe.update(steps=2, save_every=2)
        sft.run(recipe, tmp_path / name)
        seen.append([row["train/loss"] for row in metrics(tmp_path / name) if "train/loss" in row])
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-5)


def test_lora_trains_the_adapters_only_and_a_frozen_tower_stays(recipe: ConfigDict, tmp_path: Path) -> None:
    recipe.model.lora.rank = 2
    sft.run(recipe, tmp_path / "lora")
    recipe.model.lora.rank = 0
    recipe.model.freeze = r"^vision\."
    sft.run(recipe, tmp_path / "frozen")
    lora, frozen = final_params(tmp_path / "lora"), final_params(tmp_path / "frozen")
    adapted = {path for path in lora if not np.array_equal(lora[path], frozen[path])}
    for path in lora:  # both started from the same seed
        if path.startswith("vision."):
            np.testing.assert_array_equal(lora[path], frozen[path], err_msg=path)
    assert "text.layers.attn.q_proj.kernel" in adapted


def test_freezing_everything_is_refused(recipe: ConfigDict, tmp_path: Path) -> None:
    recipe.model.freeze = "."
    with pytest.raises(TrainingError, match=r"config\.model\.freeze"):
        sft.run(recipe, tmp_path / "run")


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """From when it is called, the third batch holds a number that is none; it returns the batches to come."""
    put_batch, batches = sft.put_batch, []

    def put_poisoned(mesh: Any, batch: Any) -> Any:
        batches.append(batch)
        if len(batches) == 3:
            batch.arrays["patches"][0] = np.nan
        return put_batch(mesh, batch)

    def start() -> list[Any]:
        monkeypatch.setattr(sft, "put_batch", put_poisoned)
        return batches

    return start


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    recipe: ConfigDict, tmp_path: Path, poison: Callable[[], list[Any]]
) -> None:
    batches = poison()
    with pytest.raises(TrainingError, match=r"step 3: .*loss is nan") as caught:
        sft.run(recipe, tmp_path / "run")
    assert all(sample in str(caught.value) for sample in batches[2].ids)
    assert Checkpoints(tmp_path / "run", keep=9).steps() == (2,)


def test_a_run_that_may_skip_goes_on_behind_a_loss_that_is_not_finite(
    recipe: ConfigDict, unbroken: Path, tmp_path: Path, poison: Callable[[], list[Any]]
) -> None:
    """The poisoned update is as if it had not been: what follows starts from the parameters before it."""
    poison()
    recipe.guard.stop_after = 2
    sft.run(recipe, tmp_path / "run")
    rows, whole = metrics(tmp_path / "run"), metrics(unbroken)
    assert [row["train/skipped"] for row in rows[:4]] == [0, 0, 1, 1]
    assert "train/loss" not in rows[2] and rows[1]["train/loss"] == whole[1]["train/loss"]
    assert rows[3]["train/loss"] != whole[3]["train/loss"] and np.isfinite(rows[4]["eval/loss"])
    assert all(np.isfinite(value).all() for value in final_params(tmp_path / "run").values())


def test_a_changed_recipe_does_not_resume_another_run(recipe: ConfigDict, unbroken: Path) -> None:
    recipe.update(steps=6)
    recipe.optimizer.peak = 0.5
    with pytest.raises(CheckpointError, match=r"optimizer\.peak: 0\.002 there, 0\.5 here"):
        sft.run(recipe, unbroken)


def test_the_checkpoint_with_the_best_evaluation_is_kept(recipe: ConfigDict, tmp_path: Path) -> None:
    recipe.update(keep=1, save_every=1, eval_every=1)
    recipe.keep_best.update(metric="eval/token_accuracy", direction="max")
    recipe.optimizer.update(peak=0.3, warmup=0.0)  # far too much: it only gets worse
    sft.run(recipe, tmp_path)
    found = {row["step"]: row["eval/token_accuracy"] for row in metrics(tmp_path) if "eval/loss" in row}
    best = max(found, key=lambda step: (found[step], step))
    assert Checkpoints(tmp_path, keep=9).steps() == tuple(sorted({best, 4}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"direction": "up"}, "direction is 'up'"),
        ({"metric": "eval/auroc"}, "is 'eval/auroc'; an evaluation of this run gives eval/loss"),
        ({"metric": "eval/loss"}, "eval_every=4 must be a multiple of save_every=3"),
    ],
)
def test_a_best_that_nobody_could_find_is_refused(
    recipe: ConfigDict, tmp_path: Path, fields: dict[str, str], message: str
) -> None:
    recipe.keep_best.update(fields)
    recipe.save_every = 3 if "multiple" in message else 4
    with pytest.raises(TrainingError, match=message):
        sft.run(recipe, tmp_path)


def test_a_missing_file_is_named_before_anything_is_built(recipe: ConfigDict, tmp_path: Path) -> None:
    recipe.data.train = (("binary/nothing.jsonl", "reason", 1.0),)
    with pytest.raises(TrainingError, match=r"nothing\.jsonl"):
        sft.run(recipe, tmp_path / "run")


def test_a_truncated_image_stops_with_its_name_and_loses_no_work(
    recipe: ConfigDict, bench: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image of step 4 breaks after step 2 was saved: step 3 is saved as well, and goes on when it is mended."""
    copy, broken = tmp_path / "bench", tmp_path / "broken"
    shutil.copytree(bench, copy)
    recipe.data.update(bench=str(copy), read_threads=0)
    whole = {image: image.read_bytes() for image in (copy / "images").iterdir()}
    put_batch, calls = sft.put_batch, []

    def put_and_break(mesh: Any, batch: Any) -> Any:
        calls.append(batch)
        if len(calls) == 3:
            for image, content in whole.items():
                image.write_bytes(content[:2000])
        return put_batch(mesh, batch)

    monkeypatch.setattr(sft, "put_batch", put_and_break)
    with pytest.raises(PipelineError, match=r"train\.jsonl: sample '.*', field images\[0\], file .*\.png"):
        sft.run(recipe, broken)
    assert Checkpoints(broken, keep=9).steps() == (2, 3)
    assert [row["step"] for row in metrics(broken)] == [1, 2, 3]
    monkeypatch.undo()
    for image, content in whole.items():
        image.write_bytes(content)
    sft.run(recipe, broken)
    assert_same(final_params(broken), final_params(unbroken))


def test_params_of_a_checkpoint_are_whole_with_lora(recipe: ConfigDict, tmp_path: Path) -> None:
    recipe.model.lora.rank = 2
    recipe.update(steps=1)
    sft.run(recipe, tmp_path / "run")
    names = {".".join(path) for path in traverse_util.flatten_dict(final_params(tmp_path / "run"), sep=None)}
    assert not any("lora" in name for name in names)  # merged on loading
