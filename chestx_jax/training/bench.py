"""From a config's `data` section to sources of samples, and to their batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from chestx_jax.data import read_samples
from chestx_jax.data.embedded import PROCESSOR, build_small_bench
from chestx_jax.data.example import Bucket
from chestx_jax.data.pipeline import Batch, Pipeline, Source, ordered_batches
from chestx_jax.data.processor import Processor
from chestx_jax.parallel import batch_share, by_first
from chestx_jax.storage import on_this_machine, to_path
from chestx_jax.training.state import TrainingError


@dataclass(frozen=True)
class Bench:
    """What a run trains and validates on; `processor` is the tokenizer that came with the data, if any."""

    train: tuple[Source, ...]
    validation: tuple[Source, ...]
    buckets: tuple[Bucket, ...]
    processor: Path | None


def open_bench(config: ConfigDict, seed: int, workdir: Path) -> Bench:
    """Read the files that `config` (the `data` section) names; without `bench`, build phantoms in `workdir` (the
    first of several processes does).

    Raises:
      TrainingError: neither a bench nor phantoms are asked for, or a file is not there.
      SampleError: a file holds a bad record.
      StorageError: phantoms are asked for, and `workdir` is in a bucket.
    """
    if config.bench:
        root = to_path(config.bench)
    elif config.phantom_studies:
        instead = (
            "build the phantoms with launch.build_bench, copy them, and give them as --config.data.bench"
        )
        root = on_this_machine(workdir, "--workdir", instead) / "bench"
        by_first(
            lambda: build_small_bench(
                root, source="phantom", root=None, studies=config.phantom_studies, seed=seed
            )
        )
    else:
        raise TrainingError("config.data.bench is empty: give the directory that launch.build_bench made")
    processor = root / PROCESSOR
    return Bench(
        train=tuple(_source(root, name, mode, weight, config.limit) for name, mode, weight in config.train),
        validation=tuple(
            _source(root, name, mode, 1.0, config.validation_limit or config.limit)
            for name, mode in config.validation
        ),
        buckets=tuple(Bucket(tokens, patches) for tokens, patches in config.buckets),
        processor=processor if processor.is_dir() else None,
    )


def training_batches(
    bench: Bench, processor: Processor, config: ConfigDict, mesh: Mesh, *, steps: int, target: bool
) -> Pipeline:
    """This process's share of `steps` batches.

    Args:
      config: of the whole run.
      target: whether rows hold answers, to learn from, or end where one begins.
    """
    share, shares = batch_share(mesh)
    return Pipeline(
        bench.train,
        processor,
        buckets=bench.buckets,
        batch_size=config.batch_size,
        steps=steps,
        seed=config.seed,
        target=target,
        process_index=share,
        process_count=shares,
        read_threads=config.data.read_threads,
    )


def validation_batches(
    sources: Iterable[Source],
    bench: Bench,
    processor: Processor,
    config: ConfigDict,
    mesh: Mesh,
    *,
    blank_images: bool = False,
) -> Iterator[Batch]:
    """Every sample of `sources` once, with its answer, in batches of `batch_size`, of which this is one process's
    share."""
    share, shares = batch_share(mesh)
    for source in sources:
        yield from ordered_batches(
            source,
            processor,
            buckets=bench.buckets,
            batch_size=config.batch_size,
            target=True,
            process_index=share,
            process_count=shares,
            read_threads=config.data.read_threads,
            blank_images=blank_images,
        )


def _source(root: Path, name: str, mode: str, weight: float, limit: int) -> Source:
    path = root / name
    if not path.is_file():
        raise TrainingError(f"config.data names {name!r}, but {path} is not there")
    samples = read_samples(path)
    return Source(name=str(path), samples=samples[:limit] if limit else samples, mode=mode, weight=weight)
