"""A run whose data, checkpoints and files are all in a bucket is the run that a disk would have seen."""

import json
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from chestx_jax.storage import Mirror, StorageError, absolute, files_below
from chestx_jax.training import sft
from chestx_jax.training.loop import Preempted
from chestx_jax.training.status import status
from chestx_jax.weights import load_pretrained
from chestx_jax.weights.checkpoints import Checkpoints
from chestx_jax.weights.pretrained import flat_params
from chestx_jax.weights.step_directories import damage
from tests.storage.conftest import upload
from tests.training.conftest import bench, recipe  # noqa: F401  fixtures


def final_params(workdir: Path) -> dict[str, np.ndarray]:
    return {path: np.asarray(value) for path, value in flat_params(load_pretrained(workdir)).items()}


def rows(workdir: Path) -> list[dict]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: v for name, v in row.items() if not name.startswith("perf/")} for row in lines]


def test_a_run_in_a_bucket_is_stopped_resumed_and_ends_as_on_a_disk(
    recipe: ConfigDict,  # noqa: F811
    gs: Path,
    tmp_path: Path,
):
    recipe.save_every = 4
    sft.run(recipe, tmp_path / "disk")
    recipe.data.bench = str(upload(Path(recipe.data.bench), gs / "bench"))
    recipe.max_seconds = 0.001
    with pytest.raises(Preempted, match="after step 1, which is saved"):
        sft.run(recipe, gs / "run")
    recipe.max_seconds = 0.0
    sft.run(recipe, gs / "run")

    ours, theirs = final_params(gs / "run"), final_params(tmp_path / "disk")
    assert ours.keys() == theirs.keys()
    for path in ours:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
    assert rows(gs / "run") == rows(tmp_path / "disk")
    lives = json.loads((gs / "run" / "run.json").read_text())
    assert [life["ended"][:9] for life in lives] == ["Preempted", "done"]
    names = {path.name for path in (gs / "run").iterdir()}
    assert names == {"checkpoints", "config.json", "metrics.jsonl", "model", "run.json", "tensorboard"}
    with Checkpoints(gs / "run", keep=2) as checkpoints:
        assert checkpoints.steps() == (1, 4)
    step = absolute(gs / "run") / "checkpoints" / "4"
    assert damage(step) is None
    told = "\n".join(status(gs / "run"))
    assert "step 4 of 4\ndone\n" in told and f"last checkpoint: {gs}/run/checkpoints/4, " in told
    _damage_is_found_here_and_in_a_copy(step, tmp_path / "copy")


def _damage_is_found_here_and_in_a_copy(step: epath.Path, copy: Path) -> None:
    for name, file in files_below(step).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(file.path.read_bytes())
    assert damage(epath.Path(copy)) is None
    name = next(name for name in files_below(step) if "/d/" in name)
    changed = bytearray((copy / name).read_bytes())
    changed[0] ^= 1
    for place in (epath.Path(copy), step):
        (place / name).write_bytes(changed)
        assert damage(place) == f"{place / name} is not what was written: its MD5 differs"


def test_a_save_that_was_killed_in_a_bucket_is_set_aside_and_made_again(
    recipe: ConfigDict,  # noqa: F811
    gs: Path,
):
    recipe.save_every = 2
    sft.run(recipe, gs / "run")
    whole = final_params(gs / "run")
    last = gs / "run" / "checkpoints" / "4"
    (last / "commit_success.txt").unlink()  # written last, so a kill leaves none
    with Checkpoints(gs / "run", keep=2) as checkpoints:
        assert checkpoints.steps() == (2,)
    assert not last.exists() and (last.parent / "unfinished-4" / "params").is_dir()
    sft.run(recipe, gs / "run")
    again = final_params(gs / "run")
    assert last.is_dir() and all((again[path] == whole[path]).all() for path in whole)


def test_a_run_that_cannot_be_brought_to_its_bucket_does_not_end_well(
    recipe: ConfigDict,  # noqa: F811
    gs: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    pushes = []

    def push(self: Mirror) -> None:
        pushes.append(self)
        if len(pushes) > 3:  # the start's, those of two checkpoints, then the end's
            raise OSError("out of reach")

    monkeypatch.setattr(Mirror, "push", push)
    with pytest.raises(OSError, match="out of reach"):
        sft.run(recipe, gs / "run")


def test_a_run_in_s3_is_refused_before_anything_is_written(
    recipe: ConfigDict,  # noqa: F811
    s3: Path,
):
    with pytest.raises(StorageError, match=r"s3://.*/run: checkpoints can be on disks and in gs:// only"):
        sft.run(recipe, s3 / "run")
    assert not s3.exists()
    (s3 / "run" / "checkpoints" / "4" / "_CHECKPOINT_METADATA").write_text("{}")
    for place in ("run", "run/checkpoints", "run/checkpoints/4"):
        with pytest.raises(StorageError, match="checkpoints can be on disks"):
            load_pretrained(s3 / place)


def test_phantoms_are_not_built_in_a_bucket(recipe: ConfigDict, gs: Path):  # noqa: F811
    recipe.data.update(bench="", phantom_studies=3)
    with pytest.raises(StorageError, match=r"--workdir=gs://.* must be on this machine.*--config.data.bench"):
        sft.run(recipe, gs / "run")
