"""Predictions do not depend on batches or devices, can be interrupted, and see the image they are given."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest
from flax import nnx

from chestx_jax.data import Processor, read_samples
from chestx_jax.data.embedded import build_small_bench
from chestx_jax.data.pipeline import PipelineError
from chestx_jax.evaluation.inference import Inference
from chestx_jax.evaluation.predict import Decoding, predict
from chestx_jax.models.qwen2_vl import TINY, Qwen2VL
from chestx_jax.parallel import make_mesh
from chestx_jax.training.setup import fit_to_tokenizer

DECODING = Decoding(mode="reason", max_new_tokens=6, batch_size=8)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "bench"
    build_small_bench(out, source="phantom", root=None, studies=24, seed=1)
    return out


@pytest.fixture(scope="module")
def inference(bench: Path) -> Inference:
    """A random model: what it says means nothing, but must always be the same."""
    processor = Processor.from_pretrained(bench / "processor", image_size=56)
    sizes = dataclasses.replace(fit_to_tokenizer(TINY, processor), initializer_range=0.2)
    mesh = make_mesh({"replica": 1, "fsdp": 8, "tensor": 1})
    return Inference(Qwen2VL(sizes, rngs=nnx.Rngs(params=0)), processor, mesh, "random")


def texts(inference: Inference, samples: list, decoding: Decoding) -> dict[str, str]:
    with jax.set_mesh(inference.mesh):
        groups = predict(inference.model, inference.processor, samples, decoding, inference.mesh)
        return {row["id"]: row["prediction"] for rows in groups for row in rows}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_any_batch_size_gives_the_same_texts(inference: Inference, bench: Path, temperature: float) -> None:
    samples = read_samples(bench / "anomaly" / "train.jsonl")[:11]
    decoding = dataclasses.replace(DECODING, temperature=temperature)
    small = texts(inference, samples, decoding)
    assert small == texts(inference, samples, dataclasses.replace(decoding, batch_size=16))
    assert set(small) == {sample.id for sample in samples}


def test_a_blank_image_gives_another_text(inference: Inference, bench: Path) -> None:
    samples = read_samples(bench / "anomaly" / "train.jsonl")[:8]
    assert texts(inference, samples, DECODING) != texts(
        inference, samples, dataclasses.replace(DECODING, blank_images=True)
    )


def test_a_file_goes_on_where_it_stopped(inference: Inference, bench: Path, tmp_path: Path) -> None:
    data = bench / "anomaly" / "train.jsonl"
    inference.predict_file(data, tmp_path / "whole.jsonl", DECODING)
    whole = (tmp_path / "whole.jsonl").read_text()
    inference.predict_file(data, tmp_path / "part.jsonl", DECODING)
    (tmp_path / "part.jsonl").write_text("".join(whole.splitlines(keepends=True)[:5]))
    inference.predict_file(data, tmp_path / "part.jsonl", DECODING)
    predictions = [
        {row["id"]: row["prediction"] for row in map(json.loads, path.read_text().splitlines())}
        for path in (tmp_path / "whole.jsonl", tmp_path / "part.jsonl")
    ]
    assert predictions[0] == predictions[1]


def test_the_same_line_again_once_all_is_predicted(inference: Inference, bench: Path, tmp_path: Path) -> None:
    inference.predict_file(bench / "anomaly" / "train.jsonl", tmp_path / "p.jsonl", DECODING)
    whole = (tmp_path / "p.jsonl").read_text()
    inference.predict_file(bench / "anomaly" / "train.jsonl", tmp_path / "p.jsonl", DECODING)
    assert (tmp_path / "p.jsonl").read_text() == whole


def test_a_missing_image_is_named_and_what_was_predicted_stays(
    inference: Inference, bench: Path, tmp_path: Path
) -> None:
    lines = (bench / "anomaly" / "train.jsonl").read_text().splitlines()[:9]
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["images"] = [str((bench / "anomaly" / image).resolve()) for image in row["images"]]
    rows[-1]["images"] = ["gone.png"]
    rows[-1]["question"] = "?"  # the shortest prompt comes last
    data = tmp_path / "samples.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(PipelineError, match=r"sample '.*', field images\[0\], file .*gone\.png"):
        inference.predict_file(data, tmp_path / "p.jsonl", DECODING)
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 8


def test_one_question_from_the_command_line(inference: Inference, bench: Path) -> None:
    image = next((bench / "images").iterdir())
    assert inference.ask([image], "Which findings are in this chest X-ray?", DECODING)
