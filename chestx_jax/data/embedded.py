"""The embedded data: a phantom benchmark and a tokenizer of its words, made on the spot."""

import logging
import shutil
from pathlib import Path

from chestx_jax.data.bench import build_bench
from chestx_jax.data.chat import SUFFIX
from chestx_jax.data.jsonl import read_samples
from chestx_jax.data.schema import TASKS
from chestx_jax.data.sources.phantom import studies
from chestx_jax.data.tokenizer import train_tokenizer

log = logging.getLogger(__name__)

PROCESSOR = "processor"
VOCAB_SIZE = 1024
IMAGE_SIZE = 256


def build_embedded(out: Path, *, count: int, seed: int) -> None:
    """Build `count` phantom studies into a benchmark under `out`, with a tokenizer in `out`/processor.

    `out` appears only once it is whole, so an interrupted build is simply made again; one that is there is
    taken as it is.
    """
    if out.is_dir():
        return
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    log.info("building %d phantom studies in %s", count, out)
    build_bench(studies(count, seed=seed, size=IMAGE_SIZE, out=partial), partial, TASKS, seed)
    texts = [SUFFIX, "<think>  </think><answer>  </answer>", "system\nYou are a helpful assistant."]
    for task in TASKS:
        for sample in read_samples(partial / task / "train.jsonl"):
            texts += [sample.question, " ".join(sample.reason_steps), sample.answer]
    train_tokenizer(texts, VOCAB_SIZE, partial / PROCESSOR)
    partial.rename(out)
