"""Small benchmarks with a tokenizer of their own words: the embedded phantoms, or any collection, made on the
spot for models that are trained from scratch."""

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from chestx_jax.data.bench import Recipe, build_bench
from chestx_jax.data.chat import SUFFIX
from chestx_jax.data.jsonl import read_samples
from chestx_jax.data.schema import TASKS
from chestx_jax.data.sources import Rejected, Request, read_studies
from chestx_jax.data.tokenizer import train_tokenizer

log = logging.getLogger(__name__)

PROCESSOR = "processor"
VOCAB_SIZE = 1024
IMAGE_SIZE = 256
WORTH_PROCESSES = 200  # studies
FRAME = (
    "system\nYou are a helpful assistant.",
    "user\n",
    "assistant\n",
    SUFFIX,
    "<think>  </think><answer>  </answer>",
)


def build_small_bench(out: Path, *, source: str, root: Path | None, studies: int, seed: int) -> None:
    """Build a benchmark under `out`, with a tokenizer of its words in `out`/processor.

    `out` appears only once it is whole, so an interrupted build is simply made again; one that is there is
    taken as it is.

    Args:
      source, root: a name of `data.sources.SOURCES` and where the collection is (None for phantoms).
      studies: how many phantoms to make.

    Raises:
      SourceError: the collection is not there, or not what it should be.
    """
    if out.is_dir():
        return
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    log.info("building the %s bench in %s", source, out)
    rejected: list[Rejected] = []
    processes = _processes(studies)
    request = Request(root, partial, studies, seed, IMAGE_SIZE, processes=processes)
    recipe = Recipe(seed=seed, sampling="everything", miner="rules")  # a question left out is a lesson lost
    found = read_studies(source, request, rejected.append)
    build_bench(found, partial, recipe, rejected=rejected, processes=processes)
    train_tokenizer(_texts(partial), VOCAB_SIZE, partial / PROCESSOR)
    partial.rename(out)


def _processes(studies: int) -> int:
    """All cores for a bench that takes longer to make than processes to start."""
    return (os.cpu_count() or 1) if studies >= WORTH_PROCESSES else 1


def _texts(bench: Path) -> Iterable[str]:
    """What a model of this bench reads and writes, in a fixed order."""
    yield from FRAME
    for task in TASKS:
        path = bench / task / "train.jsonl"
        for sample in read_samples(path) if path.is_file() else ():
            yield from (sample.question, " ".join(sample.reason_steps), sample.answer)
