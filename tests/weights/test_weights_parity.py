"""What we write transformers loads, and what it writes we load: same names, same logits. Needs torch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from chestx_jax.models.lora import LANGUAGE_LINEARS, add_lora
from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig
from chestx_jax.weights import Adapter, Checkpoints, load_pretrained, save_pretrained, write_model_files
from chestx_jax.weights.pretrained import flat_params, patch_shape
from chestx_jax.weights.table import expected_keys
from tests.models import cases
from tests.weights.tiny import golden_names

torch = pytest.importorskip("torch")
from transformers import Qwen2VLForConditionalGeneration  # noqa: E402

from tests.golden.make_parameter_names import file_tensors  # noqa: E402
from tests.models import torch_qwen2_vl as reference  # noqa: E402

pytestmark = pytest.mark.parity
TIED, UNTIED = cases.CASES[0], cases.CASES[1]


def load_with_transformers(directory):
    """In transformers, with whatever it says about keys; anything but silence fails."""
    model, info = Qwen2VLForConditionalGeneration.from_pretrained(
        directory, output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return model.eval()


def assert_same_logits(model, theirs, case, atol=1e-4):
    rows, batch = cases.unpadded_rows(case), cases.make_batch(case)
    with torch.no_grad():
        expected = theirs(**reference.torch_inputs(rows, batch)).logits.float().numpy()
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(nnx.jit(lambda model, batch: model(batch))(model, batch))
    assert np.abs(logits - expected)[batch["segments"] > 0].max() <= atol


@pytest.mark.parametrize("case", [TIED, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("max_shard_bytes", [1e9, 30_000])
def test_an_export_loads_in_transformers(tmp_path, case, max_shard_bytes):
    model = cases.build(case.config)
    save_pretrained(model, tmp_path / "out", max_shard_bytes=max_shard_bytes)
    theirs = load_with_transformers(tmp_path / "out")
    assert theirs.dtype == torch.float32
    assert_same_logits(model, theirs, case)


def test_an_export_in_bfloat16_is_taken_as_such(tmp_path):
    model = cases.build(TIED.config)
    save_pretrained(model, tmp_path / "out", dtype=jnp.bfloat16)
    theirs = load_with_transformers(tmp_path / "out")
    assert theirs.dtype == torch.bfloat16
    assert_same_logits(load_pretrained(tmp_path / "out", dtype=jnp.float32), theirs.float(), TIED)


def test_an_export_of_a_checkpoint_with_adapters(tmp_path):
    model = cases.build(UNTIED.config)
    adapter = Adapter(rank=2, alpha=4.0, targets=LANGUAGE_LINEARS)
    add_lora(model, adapter.rank, adapter.alpha, adapter.targets, nnx.Rngs(1))
    for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if path[-1] == "lora_b":
            value.set_value(0.1 * jax.random.normal(jax.random.key(1), value.shape))
    write_model_files(tmp_path, UNTIED.config, adapter=adapter)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": nnx.to_pure_dict(nnx.state(model, nnx.Param))}, {}, {})
    save_pretrained(load_pretrained(tmp_path), tmp_path / "out")
    theirs = load_with_transformers(tmp_path / "out")
    assert_same_logits(model, theirs, UNTIED)
    with pytest.raises(AssertionError):
        assert_same_logits(cases.build(UNTIED.config), theirs, UNTIED)


@pytest.mark.parametrize("case", [TIED, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("max_shard_size", ["1GB", "30KB"])
def test_what_transformers_saved_loads_and_comes_back_to_the_byte(tmp_path, case, max_shard_size):
    theirs = reference.build_torch(case.config, cases.numpy_weights(case.config))
    theirs.save_pretrained(tmp_path / "in", max_shard_size=max_shard_size)
    model = load_pretrained(tmp_path / "in")
    assert_same_logits(model, theirs, case)
    save_pretrained(model, tmp_path / "out")
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
    found = {}
    for file in (tmp_path / "in").glob("*.safetensors"):
        found |= load_file(file)
    for key, value in load_file(tmp_path / "out" / "model.safetensors").items():
        assert found.pop(key).tobytes() == value.tobytes(), key
    assert not found


@pytest.mark.parametrize("name", ["qwen2_vl_2b", "qwen2_vl_7b"])
def test_names_and_shapes_of_the_published_configs(shared_data, name):
    path = shared_data / "qwen2vl" / name.replace("qwen2_vl_", "qwen2-vl-") / "config.json"
    published = json.loads(path.read_text())
    theirs = {key: tuple(shape) for key, shape in file_tensors(published).items()}
    config = Qwen2VLConfig.from_hf(published)
    model = nnx.eval_shape(lambda: Qwen2VL(config, rngs=nnx.Rngs(0)))
    shapes = {path: tuple(leaf.shape) for path, leaf in flat_params(model).items()}
    assert {key: shape for key, (_, shape) in expected_keys(shapes, patch_shape(config)).items()} == theirs
    assert golden_names(name) == theirs
