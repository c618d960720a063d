"""Models and predictions in buckets are those of a disk, to the bit."""

from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pydicom
import pytest

from chestx_jax.data import Processor, SampleError, load_image, read_samples, write_samples
from chestx_jax.data.embedded import build_small_bench
from chestx_jax.data.images import ImageError
from chestx_jax.evaluation.predictions import PredictionError, PredictionWriter, read_predictions
from chestx_jax.parallel import make_mesh
from chestx_jax.storage import files_below
from chestx_jax.storage.paths import absolute
from chestx_jax.weights import WeightsError, load_pretrained, save_pretrained
from chestx_jax.weights.pretrained import flat_params
from chestx_jax.weights.safetensors_file import SafetensorsWriter
from tests.storage.conftest import upload
from tests.weights.tiny import random_model, random_tensors, write_hf

BUCKETS = pytest.mark.parametrize("kind", ["gs", "s3"])


@pytest.fixture
def bucket(kind: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(kind)


def bits(directory: Path, **options) -> dict[str, bytes]:
    loaded = flat_params(load_pretrained(directory, **options))
    return {path: np.asarray(value).tobytes() for path, value in loaded.items()}


@BUCKETS
@pytest.mark.parametrize("shards", [1, 3])
def test_a_model_is_read_out_of_a_bucket(bucket: Path, tmp_path: Path, shards: int):
    local = write_hf(tmp_path / "hf", random_tensors(False, ml_dtypes.bfloat16), False, shards)
    there = upload(local, bucket / "hf")
    assert bits(there) == bits(local)
    if shards == 3:
        mesh = make_mesh({"replica": 1, "fsdp": 8, "tensor": 1})
        assert bits(there, mesh=mesh, dtype=np.float32) == bits(local, mesh=mesh, dtype=np.float32)


@BUCKETS
def test_a_model_that_is_cut_short_or_missing_is_named(bucket: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match=r"://bucket/.*/config.json does not exist"):
        load_pretrained(bucket / "absent")
    there = upload(write_hf(tmp_path / "hf", random_tensors(False, np.float32), False), bucket / "hf")
    weights = there / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(WeightsError, match=r"://bucket/.*/model.safetensors: .*cut short"):
        load_pretrained(there)


@BUCKETS
def test_an_export_to_a_bucket_is_the_one_to_a_disk(bucket: Path, tmp_path: Path):
    model = random_model()
    save_pretrained(model, tmp_path / "out", dtype=ml_dtypes.bfloat16, max_shard_bytes=100_000)
    save_pretrained(model, bucket / "out", dtype=ml_dtypes.bfloat16, max_shard_bytes=100_000)
    here, there = (files_below(absolute(place / "out")) for place in (tmp_path, bucket))
    assert here.keys() == there.keys() and len(here) > 3
    for name in here:
        assert here[name].path.read_bytes() == there[name].path.read_bytes(), name
    with pytest.raises(WeightsError, match="exists and is not an empty directory"):
        save_pretrained(model, bucket / "out")


@BUCKETS
def test_an_export_that_fails_leaves_nothing(bucket: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SafetensorsWriter, "_is_as_written", lambda self, name, info: False)
    with pytest.raises(WeightsError, match=r"://bucket/.*on disk, these tensors differ"):
        save_pretrained(random_model(), bucket / "out")
    assert not (bucket / "out").exists()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "bench"
    build_small_bench(out, source="phantom", root=None, studies=12, seed=1)
    return out


@BUCKETS
def test_a_bench_is_read_out_of_a_bucket(bucket: Path, bench: Path, tmp_path: Path):
    there = upload(bench, bucket / "bench")
    ours = read_samples(str(there / "binary" / "train.jsonl"))
    theirs = read_samples(bench / "binary" / "train.jsonl")
    assert [s.id for s in ours] == [s.id for s in theirs] and ours[0].images[0].startswith("..")
    processors = [
        Processor.from_pretrained(str(root / "processor"), image_size=56) for root in (there, bench)
    ]
    assert processors[0].digest() == processors[1].digest()
    examples = [
        make(s[0], mode="reason", target=True) for make, s in zip(processors, (ours, theirs), strict=True)
    ]
    jax.tree.map(np.testing.assert_array_equal, *map(vars, examples))
    write_samples(tmp_path / "local.jsonl", ours)  # the images stay where they are
    again = read_samples(tmp_path / "local.jsonl")
    assert again[0].image_paths == ours[0].image_paths
    np.testing.assert_array_equal(load_image(again[0].image_paths[0]), load_image(theirs[0].image_paths[0]))


@BUCKETS
def test_images_of_a_bucket_fail_as_those_of_a_disk(bucket: Path):
    with pytest.raises(ImageError, match=r"://bucket/.*/absent.png: cannot be read"):
        load_image(bucket / "absent.png")
    (bucket / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match="neither PNG, JPEG nor DICOM"):
        load_image(bucket / "text.png")
    name = pydicom.data.get_testdata_file("CT_small.dcm", download=False)
    (bucket / "ct.dcm").write_bytes(Path(name).read_bytes())
    np.testing.assert_array_equal(load_image(bucket / "ct.dcm"), load_image(name))


def test_a_bench_in_a_bucket_holds_no_record_files(gs: Path, bench: Path):
    line = (bench / "binary" / "train.jsonl").read_text().splitlines()[0]
    image = read_samples(bench / "binary" / "train.jsonl")[0].images[0]
    (gs / "a.jsonl").write_text(line.replace(image, "x.array_record-00000-of-00001/0/0"))
    with pytest.raises(
        SampleError, match=r"a.jsonl:1: field 'images': an ArrayRecord file must be on this machine"
    ):
        read_samples(gs / "a.jsonl")


@BUCKETS
def test_predictions_go_on_where_a_bucket_has_them(bucket: Path, monkeypatch: pytest.MonkeyPatch):
    out = bucket / "out" / "predictions.jsonl"
    writer = PredictionWriter(out, {"seed": 0})
    writer.write([{"id": "a", "prediction": "A"}])
    assert not out.exists()  # the network is asked twice a minute
    monkeypatch.setattr("chestx_jax.evaluation.predictions.PUSH_EVERY", 0.0)
    writer.write([{"id": "b", "prediction": "B"}])
    assert set(read_predictions(out)) == {"a", "b"}
    writer.close()
    again = PredictionWriter(out, {"seed": 0})
    assert again.done == {"a", "b"}
    again.write([{"id": "c", "prediction": "C"}])
    again.close()
    assert list(read_predictions(out)) == ["a", "b", "c"]
    with pytest.raises(PredictionError, match=r"bucket/.*/predictions.jsonl was made with other settings"):
        PredictionWriter(out, {"seed": 1})
