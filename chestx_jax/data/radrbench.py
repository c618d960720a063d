"""RadRBench-CXR as a TensorFlow Datasets builder: ArrayRecord files, made and read without TensorFlow.

    builder = RadRBench(config="openi_binary", bench="bench", data_dir="bench")
    builder.download_and_prepare()                                    # bench/radrbench/openi_binary/1.0.0
    samples = read_records("bench/radrbench/openi_binary/1.0.0", "train")

One config a source and task; it converts the JSONL files that `launch.build_bench` wrote, so both hold the same
samples in the same order. A record is a study: its images once, as encoded bytes, and its questions of the task.
`read_records` gives Samples whose images are paths into the records (`data.records`), which the processor, the
pipeline and the evaluation read like files. `tfds.builder_from_directory(..).as_data_source("train")` works too.

Lists of texts (options, reason_steps) and the fields that the schema does not know are JSON in a text feature:
TFDS cannot write lists in lists without TensorFlow.
"""

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from chestx_jax.data.jsonl import read_samples, sample_from_json, sample_to_json
from chestx_jax.data.records import IMAGES, fields, open_records
from chestx_jax.data.schema import FIELDS, TASKS, Sample, SampleError
from chestx_jax.data.sources import SOURCES, tasks_of

_SHARED = ("study", "patient", "source", "task", "report")
_OWN = ("id", "question", "options", "answer", "answer_text", "reason_steps", "extra")


def config_name(source: str, task: str) -> str:
    """The name of the config of a source and task."""
    return f"{source}_{task}"


class RadRBench(tfds.core.GeneratorBasedBuilder):
    """The builder; `bench` is the directory that `launch.build_bench` wrote, needed to build only."""

    name = "radrbench"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS reads this attribute)
        tfds.core.BuilderConfig(name=config_name(source, task), description=f"{task} questions from {source}")
        for source in sorted(SOURCES)
        for task in tasks_of(source, TASKS)
    ]

    def __init__(self, *, bench: str | Path | None = None, **kwargs: Any):
        self._bench = None if bench is None else Path(bench)
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    **dict.fromkeys(_SHARED, text),
                    "image_names": tfds.features.Sequence(text),
                    IMAGES: tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3))),
                    "questions": tfds.features.Sequence(dict.fromkeys(_OWN, text)),
                }
            ),
            disable_shuffling=True,  # the order of the JSONL files; training shuffles by itself
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        if self._bench is None:
            raise ValueError(
                "RadRBench needs bench=DIR, the directory that launch.build_bench wrote, to build"
            )
        source, _, task = self.builder_config.name.rpartition("_")
        splits = {}
        for file in sorted((self._bench / task).glob("*.jsonl")):
            if samples := [sample for sample in read_samples(file) if sample.source == source]:
                splits[file.stem] = self._generate_examples(samples)
        if not splits:
            raise FileNotFoundError(f"no {task} questions from {source} in {self._bench / task}/*.jsonl")
        return splits

    def _generate_examples(self, samples: Sequence[Sample]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (_, group) in enumerate(groupby(samples, key=lambda s: (s.study, s.images))):
            yield number, record_of(list(group))


def record_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """The record of one study's questions of one task, all of the same images."""
    first = sample_to_json(samples[0])
    return {
        **{name: "" if first[name] is None else first[name] for name in _SHARED},
        "image_names": first["images"],
        IMAGES: [io.BytesIO(path.read_bytes()) for path in samples[0].image_paths],
        "questions": [_question(sample) for sample in samples],
    }


def _question(sample: Sample) -> dict[str, str]:
    record = sample_to_json(sample)
    lists = {name: json.dumps(record[name], ensure_ascii=False) for name in ("options", "reason_steps")}
    own = {name: record[name] for name in _OWN if name in FIELDS}
    return own | lists | {"extra": json.dumps(dict(sample.extra), ensure_ascii=False)}


def write_records(bench: Path, source: str, tasks: Sequence[str]) -> list[Path]:
    """Converts the bench's questions of each task; returns the folders, <bench>/radrbench/<config>/<version>.

    A folder of an earlier build is replaced; each appears whole or not at all.
    """
    folders = []
    for task in tasks:
        if any((bench / task).glob("*.jsonl")):
            builder = RadRBench(config=config_name(source, task), bench=bench, data_dir=str(bench))
            shutil.rmtree(builder.data_dir, ignore_errors=True)
            builder = RadRBench(config=config_name(source, task), bench=bench, data_dir=str(bench))
            builder.download_and_prepare()
            folders.append(Path(builder.data_dir))
    shutil.rmtree(bench / "downloads", ignore_errors=True)  # TFDS makes it, and nothing is downloaded
    return folders


def read_records(folder: str | Path, split: str) -> list[Sample]:
    """Every sample of a split, in order; their images are paths into the records.

    Args:
      folder: <data_dir>/radrbench/<config>/<version>.

    Raises:
      FileNotFoundError: no files of this split. SampleError: a record that is not a study's questions.
    """
    folder = Path(folder).absolute()
    files = sorted(folder.glob(f"*-{split}.array_record-*"))
    if not files:
        raise FileNotFoundError(f"no records of split {split!r} in {folder}")
    samples: list[Sample] = []
    for file in files:
        reader = open_records(file)
        for number in range(reader.num_records()):
            samples += _samples_of(fields(reader.read([number])[0]), file, number)
    return samples


def _samples_of(record: dict[str, list[bytes]], file: Path, number: int) -> Iterator[Sample]:
    where = f"{file}: record {number}"
    missing = [
        name for name in (*_SHARED, IMAGES, *(f"questions/{own}" for own in _OWN)) if name not in record
    ]
    if missing:
        raise SampleError([f"{where}: feature '{name}': missing" for name in missing])
    shared: dict[str, Any] = {name: record[name][0].decode() for name in _SHARED}
    shared["patient"] = shared["patient"] or None
    shared["images"] = [f"{number}/{i}" for i in range(len(record[IMAGES]))]
    columns = {name: [value.decode() for value in record[f"questions/{name}"]] for name in _OWN}
    for row in zip(*columns.values(), strict=True):
        own: dict[str, Any] = dict(zip(columns, row, strict=True))
        for name in ("options", "reason_steps"):
            own[name] = json.loads(own[name])
        extra = json.loads(own.pop("extra"))
        yield sample_from_json({**shared, **own, **extra}, file, where)
