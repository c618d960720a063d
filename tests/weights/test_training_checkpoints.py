"""Checkpoints of a run: resumed to the bit, on another mesh, and never a foreign or half one."""

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors.numpy import load_file

from chestx_jax.models.lora import LANGUAGE_LINEARS, add_lora, merge_lora
from chestx_jax.parallel import make_mesh, replicated, shardings
from chestx_jax.weights import (
    Adapter,
    CheckpointError,
    Checkpoints,
    WeightsError,
    companions,
    find_step,
    load_pretrained,
    save_pretrained,
    write_model_files,
)
from chestx_jax.weights.pretrained import flat_params
from chestx_jax.weights.step_directories import finished_steps
from tests.weights.tiny import TIED, random_model, random_tensors, write_hf

META = {"model": "tiny", "seed": 3, "data": {"batch_size": 4}}


def mesh_of(replica, fsdp, tensor):
    return make_mesh({"replica": replica, "fsdp": fsdp, "tensor": tensor})


def make_state(model, mesh=None, frozen: str = "") -> dict:
    """A state with made-up moments, none for `frozen`; on a mesh they lie as their parameters do."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(1e-3, 10)))
    rng = np.random.default_rng(0)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    learning = {name: tree for name, tree in params.items() if name != frozen}
    moments = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), jax.eval_shape(tx.init, learning)
    )
    state = {"params": params, "opt_state": moments, "step": np.int32(7)}
    if mesh is None:
        return jax.tree.map(jnp.asarray, state)
    placed = shardings(model, mesh)
    of_moments = optax.tree_map_params(
        tx,
        lambda _, sharding: sharding,
        moments,
        {name: placed[name] for name in learning},
        transform_non_params=lambda _: replicated(mesh),
    )
    return jax.device_put(state, {"params": placed, "opt_state": of_moments, "step": replicated(mesh)})


def abstract_of(state: dict, mesh) -> dict:
    """Every leaf whole on every device: another placement than it was saved from."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), state
    )


def assert_equal(got, want) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.fixture(scope="module")
def model():
    return random_model(TIED)


@pytest.fixture(scope="module")
def state(model):
    return make_state(model)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, state) -> Path:
    """A workdir with the steps 5 and 7; tests copy it before they harm it."""
    workdir = tmp_path_factory.mktemp("run")
    processor = write_hf(workdir.parent / "processor", random_tensors(True, np.float32), tied=True)
    write_model_files(workdir, TIED, source=processor)
    with Checkpoints(workdir, keep=2) as checkpoints:
        checkpoints.save(5, state, {"next_index": 20}, META)
        checkpoints.save(7, state, {"next_index": 28}, META)
    return workdir


@pytest.fixture
def workdir(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "run")


@pytest.mark.parametrize("frozen", ["", "vision"])
def test_restored_to_the_bit_on_another_mesh(tmp_path, model, frozen):
    here, there = mesh_of(1, 4, 2), mesh_of(2, 2, 2)
    state = make_state(model, here, frozen)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(7, state, {"next_index": 28, "nested": {"a": [1, 2]}}, META)
        checkpoints.wait()
        placed = shardings(model, there)
        abstract = abstract_of(state, there)
        abstract["params"] = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state["params"],
            placed,
        )
        restored = checkpoints.restore(7, abstract, META)
    assert_equal(restored.state, state)
    jax.tree.map(
        lambda x, s: x.sharding == s or pytest.fail(f"{x.sharding}"), restored.state["params"], placed
    )
    assert restored.data_state == {"next_index": 28, "nested": {"a": [1, 2]}}
    assert restored.meta == META


def test_saving_does_not_wait_but_may_be_followed_by_donation(tmp_path, state):
    add_one = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    own = jax.tree.map(jnp.array, state)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, own, {}, {})
        changed = add_one(own)
        jax.block_until_ready(changed)
        checkpoints.wait()
        restored = checkpoints.restore(1, abstract_of(state, mesh_of(1, 8, 1)))
    assert_equal(restored.state, state)


def test_parameters_alone(tmp_path):
    state = {"params": {"x": jnp.arange(4.0)}}
    abstract = abstract_of(state, mesh_of(1, 8, 1))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {}, {})
        checkpoints.wait()
        assert_equal(checkpoints.restore(1, abstract).state, state)
        with pytest.raises(CheckpointError, match=r"step: absent there"):
            checkpoints.restore(1, {**abstract, "step": abstract["params"]["x"]})


def test_a_killed_save_leaves_the_one_before(tmp_path):
    """SIGKILL while the second save is under way."""
    program = f"""
import os, signal
os.environ["JAX_PLATFORMS"] = "cpu"
import jax.numpy as jnp
from chestx_jax.weights import Checkpoints
checkpoints = Checkpoints({str(tmp_path)!r}, keep=1)
checkpoints.save(1, {{"params": {{"x": jnp.ones(4)}}}}, {{"next_index": 1}}, {{}})
checkpoints.wait()
checkpoints.save(2, {{"params": {{"x": jnp.full((4000, 1000), 2.0)}}}}, {{"next_index": 2}}, {{}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.steps() == (1,)
        abstract = abstract_of({"params": {"x": jnp.ones(4)}}, mesh_of(1, 8, 1))
        assert checkpoints.restore(1, abstract).data_state == {"next_index": 1}
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]


def test_the_newest_are_kept(tmp_path, state):
    small = {"params": {"x": jnp.arange(4.0)}, "step": jnp.int32(0)}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (3, 10, 20):
            checkpoints.save(step, small, {"next_index": step}, {})
        checkpoints.wait()
        assert checkpoints.steps() == (10, 20)
        with pytest.raises(CheckpointError, match="20 exists already"):
            checkpoints.save(20, small, {}, {})
        with pytest.raises(CheckpointError, match="needs the key 'params'"):
            checkpoints.save(30, {"step": jnp.int32(0)}, {}, {})
    with Checkpoints(tmp_path, keep=2) as again:
        assert again.latest_step() == 20
        again.save(30, small, {}, {})
    assert Checkpoints(tmp_path, keep=2).steps() == (20, 30)


def leave_empty(checkpoints: Path) -> None:
    (checkpoints / "9").mkdir()


def lose_the_metadata(checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "7", checkpoints / "9")
    (checkpoints / "9" / "_CHECKPOINT_METADATA").unlink()


def lose_the_parameters(checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "7", checkpoints / "9")
    shutil.rmtree(checkpoints / "9" / "params")


def never_commit(checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "7", checkpoints / "9")
    path = checkpoints / "9" / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps({**json.loads(path.read_text()), "commit_timestamp_nsecs": None}))


def cut_the_metadata(checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "7", checkpoints / "9")
    path = checkpoints / "9" / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text()[:50])


def leave_a_temporary(checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "7", checkpoints / "9.orbax-checkpoint-tmp-1700000000000000")


@pytest.mark.parametrize(
    "harm",
    [leave_empty, lose_the_metadata, lose_the_parameters, never_commit, cut_the_metadata, leave_a_temporary],
)
def test_half_written_checkpoints_are_ignored(workdir, state, harm):
    harm(workdir / "checkpoints")
    assert find_step(workdir).name == "7"
    with Checkpoints(workdir, keep=3) as checkpoints:
        assert checkpoints.latest_step() == 7
        with pytest.raises(CheckpointError, match="9 is no finished checkpoint"):
            checkpoints.restore(9, abstract_of(state, mesh_of(1, 8, 1)))
        checkpoints.save(9, state, {"next_index": 36}, META)
        checkpoints.wait()
        assert checkpoints.latest_step() == 9
        restored = checkpoints.restore(9, abstract_of(state, mesh_of(1, 8, 1)))
    assert_equal(restored.state, state)
    assert restored.data_state == {"next_index": 36}
    assert not list((workdir / "checkpoints").glob("*tmp*"))


def test_an_unfinished_newest_does_not_push_out_the_last_good_one(workdir, state):
    leave_empty(workdir / "checkpoints")
    with Checkpoints(workdir, keep=1) as checkpoints:
        checkpoints.save(8, state, {}, {})
    with Checkpoints(workdir, keep=1) as checkpoints:
        assert checkpoints.steps() == (8,)


def cut_a_file(step: Path) -> str:
    return damage_file(step, lambda content: content[: len(content) // 2])


def flip_a_bit(step: Path) -> str:
    return damage_file(step, lambda content: content[:-1] + bytes([content[-1] ^ 1]))


def lose_a_file(step: Path) -> str:
    largest_file(step).unlink()
    return "is gone"


def tear_the_manifest(step: Path) -> str:
    (step / "files.json").write_text('{"params/x": [1,')
    return "files.json is damaged"


def largest_file(step: Path) -> Path:
    return max(
        (path for path in (step / "params").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def damage_file(step: Path, harm) -> str:
    path = largest_file(step)
    path.write_bytes(harm(path.read_bytes()))
    return str(path)


@pytest.mark.parametrize("harm", [cut_a_file, flip_a_bit, lose_a_file, tear_the_manifest])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(workdir, state, harm, caplog):
    told = harm(workdir / "checkpoints" / "7")
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(workdir)
    assert told in str(caught.value) and "Other checkpoints beside it: 5" in str(caught.value)
    with Checkpoints(workdir, keep=2) as checkpoints:
        assert checkpoints.sound_step() == 5
        assert (
            told in caplog.text and "it becomes damaged-7" not in caplog.text and "damaged-7" in caplog.text
        )
        checkpoints.save(7, state, {"next_index": 28}, META)
        checkpoints.wait()
        assert checkpoints.sound_step() == 7
        assert_equal(checkpoints.restore(7, abstract_of(state, mesh_of(1, 8, 1)), META).state, state)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_again_from_nothing(workdir):
    for step in ("5", "7"):
        cut_a_file(workdir / "checkpoints" / step)
    with (
        Checkpoints(workdir, keep=2) as checkpoints,
        pytest.raises(CheckpointError, match="every checkpoint"),
    ):
        checkpoints.sound_step()
    assert finished_steps(workdir / "checkpoints") == (5, 7)


def test_a_checkpoint_without_checksums_is_used_with_a_warning(workdir, caplog):
    """A run may die between the save and the checksums."""
    (workdir / "checkpoints" / "7" / "files.json").unlink()
    with Checkpoints(workdir, keep=2) as checkpoints:
        assert checkpoints.sound_step() == 7
    assert "7 has no files.json" in caplog.text


def test_a_save_that_fails_is_told_and_costs_nothing_else(workdir, state):
    """The disk is full: no file may grow beyond a kilobyte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with (
            pytest.raises(CheckpointError, match=r"could not be written; the checkpoints before it stay"),
            Checkpoints(workdir, keep=2) as checkpoints,
        ):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
            checkpoints.save(9, state, {}, META)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    with Checkpoints(workdir, keep=2) as checkpoints:
        assert checkpoints.sound_step() == 7 and checkpoints.steps() == (5, 7)
        checkpoints.save(9, state, {}, META)
        checkpoints.wait()
        assert checkpoints.sound_step() == 9


def test_the_best_is_kept_beside_the_newest(tmp_path):
    """Also over two lives; saves that were not evaluated, and scores that are no numbers, are never the best."""
    small = {"params": {"x": jnp.arange(4.0)}}
    with Checkpoints(tmp_path, keep=1, best="min eval/loss") as checkpoints:
        for step, score in ((1, 3.0), (2, 1.0), (3, float("nan"))):
            checkpoints.save(step, small, {}, {}, {"min eval/loss": score})
    assert finished_steps(tmp_path / "checkpoints") == (2, 3)
    with Checkpoints(tmp_path, keep=1, best="min eval/loss") as checkpoints:
        checkpoints.save(4, small, {}, {}, {"min eval/loss": 2.0})
        checkpoints.save(5, small, {}, {})
        checkpoints.wait()
        assert checkpoints.steps() == (2, 5)
        checkpoints.save(6, small, {}, {}, {"min eval/loss": 1.0})  # as good, and newer
        checkpoints.wait()
        assert checkpoints.steps() == (6,)


def test_foreign_parameters_and_optimizers_are_described(workdir, model, state):
    mesh = mesh_of(1, 8, 1)
    wider = abstract_of(make_state(random_model(dataclasses.replace(TIED, vocab_size=240))), mesh)
    with Checkpoints(workdir, keep=2) as checkpoints:
        with pytest.raises(CheckpointError) as caught:
            checkpoints.restore(7, wider)
        assert "params.text.embed.embedding: 'float32 (200, 64)' there, 'float32 (240, 64)' here" in str(
            caught.value
        )
        assert "mu.text.embed.embedding: 'float32 (200, 64)' there" in str(caught.value)
        assert "attn" not in str(caught.value)
        narrow = abstract_of(state, mesh)
        narrow["params"]["text"]["norm"]["scale"] = jax.ShapeDtypeStruct(
            (64,), jnp.bfloat16, sharding=replicated(mesh)
        )
        with pytest.raises(CheckpointError, match=r"text\.norm\.scale: 'float32 \(64,\)' there, 'bfloat16"):
            checkpoints.restore(7, narrow)
        plain_sgd = {**abstract_of(state, mesh), "opt_state": optax.sgd(1.0).init(state["params"])}
        with pytest.raises(CheckpointError, match=r"opt_state\..*mu\..*absent here"):
            checkpoints.restore(7, plain_sgd)


def test_another_run_s_meta_is_described(workdir, state):
    abstract = abstract_of(state, mesh_of(1, 8, 1))
    with Checkpoints(workdir, keep=2) as checkpoints:
        with pytest.raises(CheckpointError) as caught:
            checkpoints.restore(
                7, abstract, {"model": "tiny", "seed": 4, "data": {"batch_size": 8}, "new": 1}
            )
        assert str(caught.value).splitlines()[1:] == [
            "  seed: 3 there, 4 here",
            "  data.batch_size: 4 there, 8 here",
            "  new: absent there, 1 here",
        ]
        assert checkpoints.restore(7, abstract).meta == META


@pytest.mark.parametrize("which", ["", "checkpoints", "checkpoints/7"])
def test_load_pretrained_takes_a_checkpoint(workdir, state, which):
    model = load_pretrained(workdir / which)
    assert model.config == TIED
    assert_equal(nnx.to_pure_dict(nnx.state(model, nnx.Param)), state["params"])


def test_relative_paths(workdir, state, monkeypatch):
    for here, which in ((workdir.parent, "run"), (workdir, "."), (workdir / "checkpoints", "7")):
        monkeypatch.chdir(here)
        assert_equal(nnx.to_pure_dict(nnx.state(load_pretrained(which), nnx.Param)), state["params"])
    assert companions("7") == workdir / "model"


def test_load_pretrained_onto_a_mesh_in_another_type(workdir, state):
    mesh = mesh_of(1, 4, 2)
    model = load_pretrained(workdir, dtype=jnp.bfloat16, mesh=mesh)
    got, placed = nnx.to_pure_dict(nnx.state(model, nnx.Param)), shardings(model, mesh)
    assert_equal(got, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state["params"]))
    jax.tree.map(lambda x, s: x.sharding == s or pytest.fail(f"{x.sharding}"), got, placed)


def test_export_of_a_checkpoint(workdir, saved, state):
    save_pretrained(load_pretrained(workdir), workdir / "hf")
    source = saved.parent / "processor"
    for name in ("config.json", "generation_config.json", "preprocessor_config.json"):
        assert (workdir / "hf" / name).read_bytes() == (source / name).read_bytes()
    tensors = load_file(workdir / "hf" / "model.safetensors")
    kernel = state["params"]["text"]["layers"]["mlp"]["up_proj"]["kernel"]
    np.testing.assert_array_equal(tensors["model.layers.2.mlp.up_proj.weight"], kernel[2].T)


def test_adapters_come_merged(tmp_path):
    model = random_model(TIED)
    adapter = Adapter(rank=2, alpha=4.0, targets=LANGUAGE_LINEARS)
    add_lora(model, adapter.rank, adapter.alpha, adapter.targets, nnx.Rngs(1))
    write_model_files(tmp_path, TIED, adapter=adapter)
    state = make_state(model)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {}, {})
    nnx.update(model, nnx.State(state["params"]))
    merge_lora(model)
    loaded = load_pretrained(tmp_path)
    want = flat_params(model)
    got = flat_params(loaded)
    assert got.keys() == want.keys()
    for path, value in got.items():
        np.testing.assert_allclose(value, want[path], atol=1e-6, err_msg=path)


def test_a_checkpoint_of_another_model_than_its_config(workdir):
    config = json.loads((workdir / "model" / "config.json").read_text())
    (workdir / "model" / "config.json").write_text(json.dumps({**config, "intermediate_size": 100}))
    with pytest.raises(
        CheckpointError, match=r"mlp\.up_proj\.kernel: '\(3, 64, 96\)' there, '\(3, 64, 100\)' here"
    ):
        load_pretrained(workdir)


def test_a_run_without_a_finished_checkpoint(tmp_path):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no finished checkpoint"):
        load_pretrained(tmp_path)


def test_model_files_of_another_model_are_not_overwritten(workdir, saved):
    source = saved.parent / "processor"
    write_model_files(workdir, TIED, source=source)
    write_model_files(workdir, TIED, source=workdir / "model")
    with pytest.raises(WeightsError, match=r"num_layers: 3 there, 4 here"):
        write_model_files(workdir, dataclasses.replace(TIED, num_layers=4), source=source)
    with pytest.raises(WeightsError, match=r"adapter: None there, .*'rank': 2"):
        write_model_files(workdir, TIED, source=source, adapter=Adapter(2, 4.0, ".*"))
    assert (workdir / "model" / "config.json").read_bytes() == (source / "config.json").read_bytes()
