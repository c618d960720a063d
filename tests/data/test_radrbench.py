"""The TFDS builder: the same samples as the JSONL files, images once a study, no TensorFlow."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from chestx_jax.data import read_samples
from chestx_jax.data.bench import Recipe, build_bench
from chestx_jax.data.example import Bucket
from chestx_jax.data.images import ImageError, load_image
from chestx_jax.data.pipeline import Pipeline, Source
from chestx_jax.data.processor import Processor
from chestx_jax.data.radrbench import RadRBench, read_records, write_records
from chestx_jax.data.records import fields, open_records
from chestx_jax.data.schema import TASKS
from chestx_jax.data.sources import phantom
from tests.data.makers import SIZE, make_processor_dir


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    studies = phantom.studies(40, size=32, out=out)
    build_bench(studies, out, Recipe(sampling="everything"), progress=None)
    write_records(out, "phantom", TASKS)
    return out


def folder(bench: Path, task: str) -> Path:
    return bench / "radrbench" / f"phantom_{task}" / "1.0.0"


@pytest.mark.parametrize("task", TASKS)
def test_same_samples_in_the_same_order(bench, task):
    files = sorted((bench / task).glob("*.jsonl"))
    assert files
    for file in files:
        written, read = read_samples(file), read_records(folder(bench, task), file.stem)
        plain = {"images": (), "root": Path()}
        assert [replace(s, **plain) for s in read] == [replace(s, **plain) for s in written]
        for ours, theirs in zip(read, written, strict=True):
            for one, other in zip(ours.image_paths, theirs.image_paths, strict=True):
                np.testing.assert_array_equal(load_image(one, 32), load_image(other, 32))


def test_images_once_a_study(bench):
    samples = read_records(folder(bench, "binary"), "train")
    (file,) = folder(bench, "binary").glob("*-train.array_record*")
    reader = open_records(file)
    assert reader.num_records() == len({s.study for s in samples}) < len(samples)
    first = fields(reader.read([0])[0])
    assert first["images"][0].startswith(b"\x89PNG") and len(first["images"]) == 1


def test_the_processor_reads_from_records(bench, tmp_path):
    processor = Processor.from_pretrained(make_processor_dir(tmp_path), image_size=SIZE)
    ours = read_records(folder(bench, "temporal"), "train")[0]
    theirs = read_samples(bench / "temporal" / "train.jsonl")[0]
    one, other = (processor(s, mode="answer", target=True) for s in (ours, theirs))
    assert len(ours.images) == 2
    np.testing.assert_array_equal(one.patches, other.patches)
    np.testing.assert_array_equal(one.tokens, other.tokens)


def test_tfds_reads_it_too(bench):
    source = tfds.builder_from_directory(folder(bench, "single")).as_data_source("train")
    first, ours = source[0], read_records(folder(bench, "single"), "train")[0]
    assert first["study"].decode() == ours.study
    assert first["questions"]["question"][0].decode() == ours.question


def test_what_is_not_there_is_named(bench):
    with pytest.raises(FileNotFoundError, match="split 'dev'"):
        read_records(folder(bench, "single"), "dev")
    (file,) = folder(bench, "single").glob("*-train.array_record*")
    for place, message in (("9999/0", "none 9999"), ("0/7", "none 7"), ("x/y", "no image in a record")):
        with pytest.raises(ImageError, match=message):
            load_image(file / place)
    with pytest.raises(ImageError, match="no such file"):
        load_image(file.with_name("gone.array_record-00000-of-00001") / "0/0")
    with pytest.raises(FileNotFoundError, match="no binary questions from openi"):
        RadRBench(config="openi_binary", bench=bench, data_dir=str(bench / "x")).download_and_prepare()
    with pytest.raises(ValueError, match="bench=DIR"):
        RadRBench(config="phantom_binary", data_dir=str(bench / "x")).download_and_prepare()


def test_one_config_a_source_and_task():
    assert {"openi_binary", "phantom_temporal", "rsna_binary", "mimic_cxr_multiple"} <= set(
        RadRBench.builder_configs
    )
    assert not {"rsna_single", "ms_cxr_t_binary"} & set(RadRBench.builder_configs)


def test_no_tensorflow(bench):
    code = (
        "import sys; from chestx_jax.data.radrbench import read_records; "
        f"read_records({str(folder(bench, 'single'))!r}, 'train'); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("workers", [0, 2])
def test_the_pipeline_feeds_the_same_batches_from_records(bench, tmp_path, workers):
    processor = Processor.from_pretrained(make_processor_dir(tmp_path), image_size=SIZE)
    kwargs = dict(buckets=[Bucket(600, 16)], batch_size=4, steps=5, seed=3, read_threads=1)
    files = Source("files", read_samples(bench / "binary" / "train.jsonl"), "answer")
    records = Source("records", read_records(folder(bench, "binary"), "train"), "answer")
    one = Pipeline([files], processor, **kwargs)
    two = Pipeline([records], processor, workers=workers, **kwargs)
    for left, right in zip(one, two, strict=True):
        assert left.ids == right.ids
        for name, array in left.arrays.items():
            np.testing.assert_array_equal(right.arrays[name], array)
