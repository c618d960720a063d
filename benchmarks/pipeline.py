"""Feeding: images a second on one core, from ArrayRecord at 448 px, beside transformers' processor.

    python -m benchmarks.pipeline [--source=openi --root=DIR] [--studies=200] [--json=pipeline.json]

Builds a small bench (phantoms unless a source is named; images stored as JPEG of 512 px, as by default), as
ArrayRecord, and reads it in one process bound to one core:

- ours: the whole pipeline, from record to batch: decode, resize to 448 px, patches, tokens, positions, padding;
- theirs: `Qwen2VLImageProcessorPil` on the same bytes: decode, RGB, resize to 448 px with Pillow, the
  patches of a batch. No text and no padding: less work than ours.

Both run in turns, several rounds; the median of each is reported, and that the patches are equal. Seconds are those of
the processor, so that other work on the machine does not count.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}

import argparse
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from chestx_jax.data.bench import Recipe, build_bench
from chestx_jax.data.example import Bucket
from chestx_jax.data.pipeline import Pipeline, Source
from chestx_jax.data.processor import Processor
from chestx_jax.data.radrbench import read_records, write_records
from chestx_jax.data.records import record_image
from chestx_jax.data.schema import Sample
from chestx_jax.data.sources import Request, read_studies
from chestx_jax.data.tokenizer import train_tokenizer

SIZE, BATCH, ROUNDS = 448, 8, 5


def make(out: Path, source: str, root: Path | None, studies: int) -> list[Sample]:
    """One answer-only sample a study, from records."""
    recipe = Recipe(tasks=("anomaly",), sampling="everything", longest_side=512)
    request = Request(root, out / "drawn", studies, 0, 640)  # larger than stored, as films are
    build_bench(read_studies(source, request, lambda record: None), out, recipe, progress=None)
    (folder,) = write_records(out, source, recipe.tasks)
    return read_records(folder, "train")[:studies]


def ours(samples: list[Sample], processor: Processor) -> tuple[float, int]:
    """CPU seconds and images of one epoch."""
    buckets = [Bucket(400 + 300 * (n - 1), 1024 * n) for n in (1, 2, 4)]
    steps = len(samples) // BATCH
    pipeline = Pipeline(
        [Source("records", samples, "answer")],
        processor,
        buckets=buckets,
        batch_size=BATCH,
        steps=steps,
        seed=0,
        read_threads=0,
    )
    began, images = time.process_time(), 0
    for batch in pipeline:
        images += sum(len(sample.images) for sample in batch.samples)
    return time.process_time() - began, images


def theirs(samples: list[Sample], processor: Qwen2VLImageProcessorPil) -> tuple[float, int]:
    """CPU seconds and images of one epoch."""
    began, images = time.process_time(), 0
    for start in range(0, len(samples) - BATCH + 1, BATCH):
        paths = [path for sample in samples[start : start + BATCH] for path in sample.image_paths]
        processor(images=[their_picture(path) for path in paths], return_tensors="np")
        images += len(paths)
    return time.process_time() - began, images


def their_picture(path: Path) -> Image.Image:
    """Bytes of a record -> the picture that transformers is given."""
    picture = Image.open(io.BytesIO(record_image(path))).convert("RGB")
    return picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source", default="phantom")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tfds.disable_progress_bar()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        samples = make(out, arguments.source, arguments.root, arguments.studies)
        train_tokenizer([f"{s.question} {s.answer}" for s in samples], 600, out / "processor")
        processor = Processor.from_pretrained(out / "processor", image_size=SIZE)
        reference = Qwen2VLImageProcessorPil()
        equal = all(
            np.array_equal(
                processor(sample, mode="answer", target=True).patches,
                reference(images=[their_picture(p) for p in sample.image_paths], return_tensors="np")[
                    "pixel_values"
                ],
            )
            for sample in samples[:5]
        )
        rates: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(ROUNDS):
            for name, (seconds, images) in (
                ("ours", ours(samples, processor)),
                ("theirs", theirs(samples, reference)),
            ):
                rates[name].append(images / seconds)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    result = {
        "source": arguments.source,
        "samples": len(samples),
        "images": sum(len(sample.images) for sample in samples),
        "patches_equal": equal,
        "images_per_second": {name: round(value, 1) for name, value in middle.items()},
        "rounds": {name: [round(value, 1) for value in values] for name, values in rates.items()},
        "ratio": round(middle["ours"] / middle["theirs"], 2),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
