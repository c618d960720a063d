"""Hugging Face directories in and out: bit-identical, strict, atomic."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from chestx_jax.models.lora import LANGUAGE_LINEARS, add_lora, merge_lora
from chestx_jax.parallel import make_mesh, shardings
from chestx_jax.weights import WeightsError, export, load_pretrained, save_pretrained
from chestx_jax.weights.pretrained import flat_params
from chestx_jax.weights.safetensors_file import SafetensorsWriter
from tests.weights.tiny import UNTIED, random_model, random_tensors, write_hf

BF16 = ml_dtypes.bfloat16


def tensors_in(directory: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for file in sorted(directory.glob("*.safetensors")):
        part = load_file(file)
        assert not found.keys() & part.keys()
        found |= part
    return found


def assert_bit_identical(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert (got[key].dtype, got[key].shape) == (value.dtype, value.shape), key
        assert got[key].tobytes() == value.tobytes(), key


def listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    return random_tensors(tied=False, dtype=np.float32)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, BF16])
@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_is_bit_identical(tmp_path, tied, dtype, shards):
    tensors = random_tensors(tied, dtype)
    source = write_hf(tmp_path / "in", tensors, tied, shards)
    save_pretrained(
        load_pretrained(source), tmp_path / "out", max_shard_bytes=1e9 if shards == 1 else 160_000
    )
    assert_bit_identical(tensors_in(tmp_path / "out"), tensors)
    for name in ("config.json", "generation_config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    if shards == 1:
        written = (tmp_path / "out" / "model.safetensors").read_bytes()
        assert written == (source / "model.safetensors").read_bytes()
    else:
        index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == tensors.keys()
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
        assert len(set(index["weight_map"].values())) > 2
        for name in set(index["weight_map"].values()):
            assert (tmp_path / "out" / name).stat().st_size < 160_000 + 20_000
    assert listing(tmp_path) == ["in", "out"]


def test_bfloat16_to_float32_and_back_is_exact(tmp_path):
    tensors = random_tensors(True, BF16)
    source = write_hf(tmp_path / "in", tensors, tied=True)
    model = load_pretrained(source, dtype=jnp.float32)
    np.testing.assert_array_equal(
        model.text.embed.embedding[...], tensors["model.embed_tokens.weight"].astype(np.float32)
    )
    save_pretrained(model, tmp_path / "wide")
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["torch_dtype"] == "float32"
    assert_bit_identical(
        tensors_in(tmp_path / "wide"), {key: value.astype(np.float32) for key, value in tensors.items()}
    )
    save_pretrained(model, tmp_path / "back", dtype=jnp.bfloat16)
    assert_bit_identical(tensors_in(tmp_path / "back"), tensors)
    assert (tmp_path / "back" / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_compute_dtype_and_remat(tmp_path, tensors):
    source = write_hf(tmp_path / "in", tensors, tied=False)
    model = load_pretrained(source, compute_dtype=jnp.bfloat16, remat="full")
    assert model.text.layers.attn.q_proj.kernel[...].dtype == jnp.float32
    assert model.text.layers.attn.q_proj.dtype == jnp.bfloat16
    assert load_pretrained(source, dtype=jnp.bfloat16).text.layers.attn.q_proj.dtype == jnp.bfloat16


def test_keys_in_the_style_of_memory_are_read_and_exported_in_that_of_files(tmp_path, tensors):
    renamed = {
        key.replace("visual.", "model.visual.", 1)
        if key.startswith("visual.")
        else key.replace("model.", "model.language_model.", 1)
        if key.startswith("model.")
        else key: value
        for key, value in tensors.items()
    }
    assert len([key for key in renamed if key not in tensors]) == len(tensors) - 1
    save_pretrained(load_pretrained(write_hf(tmp_path / "in", renamed, tied=False)), tmp_path / "out")
    assert_bit_identical(tensors_in(tmp_path / "out"), tensors)
    both = {"model.visual.merger.ln_q.bias": tensors["visual.merger.ln_q.bias"], **tensors}
    with pytest.raises(WeightsError, match=r"visual\.merger\.ln_q\.bias is there twice"):
        load_pretrained(write_hf(tmp_path / "both", both, tied=False))


def test_all_wrong_tensors_are_named_at_once(tmp_path, tensors):
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["visual.merger.ln_q.bias"]
    tensors["model.layers.3.mlp.up_proj.weight"] = np.zeros((96, 64), np.float32)
    tensors["score.weight"] = np.zeros(3, np.float32)
    tensors["model.norm.weight"] = np.zeros(63, np.float32)
    tensors["model.layers.0.mlp.down_proj.weight"] = np.zeros((96, 64), np.float32)
    with pytest.raises(WeightsError) as caught:
        load_pretrained(write_hf(tmp_path / "in", tensors, tied=False))
    assert str(caught.value).splitlines()[1:] == [
        "  unknown tensor model.layers.3.mlp.up_proj.weight (96, 64)",
        "  unknown tensor score.weight (3,)",
        "  missing tensor model.layers.1.mlp.up_proj.weight (96, 64)",
        "  missing tensor visual.merger.ln_q.bias (32,)",
        "  misshapen tensor model.layers.0.mlp.down_proj.weight: (96, 64) there, "
        "the config asks for (64, 96)",
        "  misshapen tensor model.norm.weight: (63,) there, the config asks for (64,)",
    ]


@pytest.mark.parametrize("tied", [True, False])
def test_a_config_that_says_the_opposite_about_tying(tmp_path, tied):
    source = write_hf(tmp_path / "in", random_tensors(not tied, np.float32), tied)
    with pytest.raises(WeightsError, match=f"{'unknown' if tied else 'missing'} tensor lm_head.weight"):
        load_pretrained(source)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8)


def cut_in_header(path: Path) -> None:
    os.truncate(path, 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 8)


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20:40] = b"\xff" * 20
    path.write_bytes(content)


def enlarge_a_shape(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"shape":[64]', b'"shape":[65]', 1))


@pytest.mark.parametrize(
    "damage", [cut, cut_in_header, empty, lengthen, scribble, enlarge_a_shape, Path.unlink]
)
def test_damaged_files_are_named(tmp_path, tensors, damage):
    source = write_hf(tmp_path / "in", tensors, tied=False, shards=2)
    damage(source / "model-00002-of-00002.safetensors")
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors"):
        load_pretrained(source)


def test_other_unusable_directories(tmp_path, tensors):
    with pytest.raises(WeightsError, match=r"nowhere/config\.json does not exist"):
        load_pretrained(tmp_path / "nowhere")
    source = write_hf(tmp_path / "in", tensors, tied=False, shards=2)
    index = source / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"]["ghost"] = listed["weight_map"].pop("lm_head.weight")
    index.write_text(json.dumps(listed))
    with pytest.raises(WeightsError, match=r"(?s)ghost is listed.*lm_head\.weight lies"):
        load_pretrained(source)
    index.write_text("{")
    with pytest.raises(WeightsError, match=r"index\.json is damaged"):
        load_pretrained(source)
    index.unlink()
    with pytest.raises(WeightsError, match="holds neither"):
        load_pretrained(source)
    (source / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(WeightsError, match=r"config\.json does not describe a Qwen2-VL model: model_type"):
        load_pretrained(source)


def test_types_that_are_mixed_or_cannot_be_read(tmp_path, tensors):
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(BF16)
    source = write_hf(tmp_path / "mixed", tensors, tied=False, torch_dtype="float32")
    with pytest.raises(WeightsError, match=r"several types.*bfloat16 \(model\.norm\.weight\)"):
        load_pretrained(source)
    assert load_pretrained(source, dtype=jnp.float32).text.norm.scale[...].dtype == jnp.float32
    tensors["model.norm.weight"] = np.ones(64, np.int8)
    with pytest.raises(WeightsError, match=r"model\.norm\.weight has type I8"):
        load_pretrained(write_hf(tmp_path / "int8", tensors, tied=False))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 8, 1)])
def test_on_a_mesh(tmp_path, sizes):
    tensors = random_tensors(False, BF16)
    source = write_hf(tmp_path / "in", tensors, tied=False, shards=2)
    mesh = make_mesh(dict(zip(("replica", "fsdp", "tensor"), sizes, strict=True)))
    model = load_pretrained(source, mesh=mesh)
    jax.tree.map(
        lambda value, placed: value.sharding.is_equivalent_to(placed, value.ndim) or pytest.fail(str(placed)),
        nnx.to_pure_dict(nnx.state(model, nnx.Param)),
        shardings(model, mesh),
    )
    save_pretrained(model, tmp_path / "out")
    assert_bit_identical(tensors_in(tmp_path / "out"), tensors)


def test_a_model_of_no_source_gets_a_config_that_reads_back(tmp_path):
    model = random_model(param_dtype=jnp.bfloat16)
    save_pretrained(model, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    again = load_pretrained(tmp_path / "out")
    assert again.config == UNTIED
    want = flat_params(model)
    for path, value in flat_params(again).items():
        np.testing.assert_array_equal(value, want[path], err_msg=path)


def test_processor_dir_wins_over_the_source(tmp_path, tensors):
    source = write_hf(tmp_path / "in", tensors, tied=False)
    (tmp_path / "processor").mkdir()
    (tmp_path / "processor" / "tokenizer.json").write_text("{}")
    (tmp_path / "processor" / "notes.txt").write_text("stays")
    model = load_pretrained(source)
    save_pretrained(model, tmp_path / "out", tmp_path / "processor")
    assert listing(tmp_path / "out") == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (tmp_path / "out" / "config.json").read_bytes() == (source / "config.json").read_bytes()
    with pytest.raises(WeightsError, match="is not a directory"):
        save_pretrained(model, tmp_path / "out2", tmp_path / "absent")


def test_adapters_are_merged_in_what_is_written_only(tmp_path):
    model = random_model()
    add_lora(model, 2, 4.0, LANGUAGE_LINEARS, nnx.Rngs(1))
    for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if path[-1] == "lora_b":
            value.set_value(jax.random.normal(jax.random.key(len(path[-2])), value.shape))
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    save_pretrained(model, tmp_path / "out")
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    merge_lora(model)
    want = flat_params(model)
    changed = 0
    plain = flat_params(random_model())
    for path, value in flat_params(load_pretrained(tmp_path / "out")).items():
        np.testing.assert_allclose(value, want[path], atol=1e-6, err_msg=path)
        changed += not np.array_equal(value, plain[path])
    assert changed == 7


def test_an_occupied_directory_is_left_alone(tmp_path, tensors):
    model = load_pretrained(write_hf(tmp_path / "in", tensors, tied=False))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("x")
    for name in ("out", "file"):
        with pytest.raises(WeightsError, match="is not an empty directory"):
            save_pretrained(model, tmp_path / name)
    assert listing(tmp_path / "out") == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    save_pretrained(model, tmp_path / "empty")
    assert "model.safetensors" in listing(tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == (tmp_path / "in").stat().st_mode & 0o777


def test_a_failure_half_way_leaves_nothing(tmp_path, tensors, monkeypatch):
    model = load_pretrained(write_hf(tmp_path / "in", tensors, tied=False))
    write, count = SafetensorsWriter.write, [0]

    def failing(self, name, value):
        count[0] += 1
        if count[0] == 30:
            raise OSError("disk full")
        write(self, name, value)

    monkeypatch.setattr(SafetensorsWriter, "write", failing)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(model, tmp_path / "out", max_shard_bytes=100_000)
    assert listing(tmp_path) == ["in"]


def test_a_killed_export_leaves_no_directory_of_that_name(tmp_path, tensors):
    """SIGKILL after the first shard: no clean-up can run."""
    source = write_hf(tmp_path / "in", tensors, tied=False)
    program = f"""
import os, signal
from chestx_jax.weights import export, load_pretrained, save_pretrained
real = export._write_shard
def once(path, *rest):
    real(path, *rest)
    os.kill(os.getpid(), signal.SIGKILL)
export._write_shard = once
save_pretrained(load_pretrained({str(source)!r}), {str(tmp_path / "out")!r}, max_shard_bytes=100_000)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    save_pretrained(load_pretrained(source), tmp_path / "out")
    assert_bit_identical(tensors_in(tmp_path / "out"), tensors)


def test_what_lies_on_disk_is_compared_with_what_was_written(tmp_path, tensors, monkeypatch):
    model = load_pretrained(write_hf(tmp_path / "in", tensors, tied=False))
    verify = SafetensorsWriter.verify

    def flip_a_bit_first(self):
        content = bytearray(self.path.read_bytes())
        content[-1] ^= 1
        self.path.write_bytes(content)
        verify(self)

    monkeypatch.setattr(SafetensorsWriter, "verify", flip_a_bit_first)
    with pytest.raises(WeightsError, match=r"differ from the model's: visual\.patch_embed\.proj\.weight"):
        save_pretrained(model, tmp_path / "out")
    assert listing(tmp_path) == ["in"]


def test_non_contiguous_arrays_are_written_right(tmp_path):
    value = np.arange(24, dtype=np.float32).reshape(4, 6)
    writer = SafetensorsWriter(tmp_path / "x", {"a": (value.dtype, (6, 4)), "b": (np.dtype(BF16), (2,))})
    with writer:
        assert writer.order == ("a", "b")
        with pytest.raises(WeightsError, match="expected a"):
            writer.write("b", np.zeros(2, BF16))
        writer.write("a", value.T)
        writer.write("b", np.ones(2, BF16))
    writer.verify()
    np.testing.assert_array_equal(load_file(tmp_path / "x")["a"], value.T)
    save_file({"a": np.ascontiguousarray(value.T), "b": np.ones(2, BF16)}, tmp_path / "y", {"format": "pt"})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_memory_of_import_and_export(tmp_path, tensors):
    """Import holds the model and little more; export never more than a few tensors (see also benchmarks/)."""
    for key in [key for key in tensors if key.startswith("model.layers.0.")]:
        for layer in range(3, 40):
            tensors[key.replace(".0.", f".{layer}.")] = tensors[key]
    source = write_hf(tmp_path / "in", tensors, tied=False, num_hidden_layers=40)
    own = (source / "model.safetensors").stat().st_size
    tensor = max(value.nbytes for value in tensors.values())
    load_pretrained(source)  # imports and compiles
    tracemalloc.start()
    model = load_pretrained(source)
    held, peak = tracemalloc.get_traced_memory()
    assert held > 0.9 * own  # the buffers that were filled became the model, uncopied
    assert peak < own + 4 * tensor
    tracemalloc.reset_peak()
    save_pretrained(model, tmp_path / "out", max_shard_bytes=1e6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - held < 4 * tensor < own / 8
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 5


def test_shard_plan_respects_the_limit_and_keeps_large_tensors_whole():
    entries = {key: (None, (size,)) for key, size in {"a": 4, "b": 5, "c": 30, "d": 1, "e": 1}.items()}
    plan = export._plan(entries, np.dtype(np.int8), 10)
    assert list(plan.values()) == [["a", "b"], ["c"], ["d", "e"]]
    assert list(plan) == [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
