"""Batches for training, drawn from a weighted mixture and resumable; and batches for evaluation, in a fixed
order."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from jaxtyping import Bool, Int32

from chestx_jax.data.example import Bucket, order_buckets, smallest_bucket, stack
from chestx_jax.data.plan import Plan, plan_batches, shard_rows
from chestx_jax.data.processor import Processor
from chestx_jax.data.schema import Sample
from chestx_jax.data.stream import PipelineError, stream, unwrap

__all__ = ["Batch", "Pipeline", "PipelineError", "Source", "measure", "ordered_batches"]

STATE_VERSION = 1


@dataclass(frozen=True)
class Source:
    """One member of a mixture: samples, how they are asked ("reason" or "answer") and how often they are
    drawn."""

    name: str  # for messages; the file's name, say
    samples: Sequence[Sample]
    mode: str
    weight: float = 1.0


@dataclass(frozen=True)
class Batch:
    """What a step gets: arrays for the device, and what they were made of for the host.

    Attributes:
      arrays: the fields of `Example` with a leading B.
      samples: the sample of each row that is not filling.
      row_mask: False for rows that only fill the last batch of an evaluation; always the last rows.
    """

    arrays: dict[str, np.ndarray]
    samples: tuple[Sample, ...]
    row_mask: Bool[np.ndarray, " B"]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(sample.id for sample in self.samples)


@dataclass(frozen=True)
class _Maker:
    """Makes the batch of any step. Apart from `Pipeline`, for it travels to worker processes."""

    sources: tuple[Source, ...]
    processor: Processor
    buckets: tuple[Bucket, ...]
    plan: Plan
    target: bool

    def __call__(self, step: int) -> Batch:
        rows = zip(self.plan.dataset[step], self.plan.sample[step], strict=True)
        chosen = [(self.sources[dataset], self.sources[dataset].samples[index]) for dataset, index in rows]
        bucket = self.buckets[self.plan.bucket[step]]
        arrays = _collate(chosen, self.processor, bucket, target=self.target)
        return Batch(arrays, tuple(sample for _, sample in chosen), np.ones(len(chosen), bool))


def _collate(
    chosen: Sequence[tuple[Source, Sample]],
    processor: Processor,
    bucket: Bucket,
    *,
    target: bool,
    blank_images: bool = False,
) -> dict[str, np.ndarray]:
    # zeros are mapped lazily by the system: padding costs nothing until it is read
    patches = np.zeros((len(chosen), bucket.patches, processor.patch_config.width), np.float32)
    examples = []
    for (source, sample), room in zip(chosen, patches, strict=True):
        images = [processor.blank_image()] * len(sample.images) if blank_images else None
        with _in_source(source.name):
            examples.append(processor(sample, images, mode=source.mode, target=target, room=room))
    return stack(examples, bucket, processor.pad_id, patches)


class Pipeline:
    """An iterator of `Batch`es that ends after `steps`; its state is JSON and survives another number of
    processes.

    Lengths, and so the whole plan, are computed here from text alone; images are opened when their batch is
    read.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        processor: Processor,
        *,
        buckets: Sequence[Bucket],
        batch_size: int,
        steps: int,
        seed: int,
        target: bool = True,
        process_index: int = 0,
        process_count: int = 1,
        read_threads: int = 2,
        workers: int = 0,
    ):
        """Plans the run.

        Args:
          batch_size: rows over all processes; each yields its own batch_size / process_count of them.
          target: True for training on answers, False for prompts to be completed.
          read_threads: batches made at a time, in threads; 0 makes each when it is asked for.
          workers: processes to make batches in (each with its threads); 0 for this one.

        Raises:
          PipelineError: samples that fit no bucket; names the longest, its size and the largest bucket.
          PlanError: impossible weights, or a batch_size that does not divide evenly among the processes.
          ProcessorError, ChatError: a sample that cannot be rendered.
        """
        ordered = order_buckets(buckets)
        self._threads, self._workers = read_threads, workers
        plan = plan_batches(
            [measure(source, processor, ordered, target=target).bucket for source in sources],
            [source.weight for source in sources],
            batch_size=batch_size,
            steps=steps,
            seed=seed,
        )
        plan = plan.shard(process_index, process_count)
        self._maker = _Maker(tuple(sources), processor, ordered, plan, target)
        self._fingerprint = {
            "seed": seed,
            "batch_size": batch_size,
            "image_size": processor.image_size,
            "target": target,
            "buckets": [[b.tokens, b.patches] for b in ordered],
            "weights": [float(s.weight) for s in sources],
            "modes": [s.mode for s in sources],
            "data": [_digest_samples(s.samples) for s in sources],
            "processor": processor.digest(),
        }
        self._next = 0
        self._batches: grain.DatasetIterator | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __len__(self) -> int:
        return len(self._maker.plan)

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = stream(self._maker, self._next, len(self), self._threads, self._workers)
        try:
            batch = unwrap(next(self._batches))
        except PipelineError:
            self.close()  # asked again, the same batch fails again: none is ever skipped
            raise
        self._next += 1
        return batch

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the batches, JSON: the same on every process of a run, and when it is resumed."""
        return json.loads(json.dumps(self._fingerprint))

    def get_state(self) -> dict[str, Any]:
        """What `set_state` needs to go on behind the last batch that was taken (not: read ahead); the same on every
        process, however many there are."""
        return {"version": STATE_VERSION, "next_step": self._next, "fingerprint": self.fingerprint}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken: the batches from there are those of an unbroken run.

        A state from another number of processes, worker processes or steps is welcome: the plan is the same.

        Raises: PipelineError when seed, batch size, data, weights, buckets or processor differ; names what
        does.
        """
        if state.get("version") != STATE_VERSION:
            raise PipelineError(f"data state of version {state.get('version')!r}, expected {STATE_VERSION}")
        saved, ours = state["fingerprint"], self._fingerprint
        differ = [name for name in sorted(saved.keys() | ours.keys()) if saved.get(name) != ours.get(name)]
        if differ:
            lines = "; ".join(
                f"{name} (saved {saved.get(name)!r}, now {ours.get(name)!r})" for name in differ
            )
            raise PipelineError(f"the saved data state belongs to another run: {lines}")
        if not 0 <= state["next_step"] <= len(self):
            raise PipelineError(f"the saved data state is at step {state['next_step']} of {len(self)}")
        self.close()
        self._next = state["next_step"]

    def close(self) -> None:
        """Ends threads and worker processes; the next batch starts them again."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def ordered_batches(
    source: Source,
    processor: Processor,
    *,
    buckets: Sequence[Bucket],
    batch_size: int,
    target: bool,
    process_index: int = 0,
    process_count: int = 1,
    read_threads: int = 2,
    blank_images: bool = False,
) -> Iterator[Batch]:
    """Every sample once, for evaluation: bucket by bucket, the longest first (what does not fit in memory
    fails at once). With `blank_images` an even grey stands in for every image.

    The last batch of each bucket is filled up with repeats of its last row; `row_mask` and `loss_mask` are
    False there.

    Raises: as `Pipeline`; batches come from `read_threads` threads.
    """
    ordered = order_buckets(buckets)
    size = measure(source, processor, ordered, target=target)
    steps = []
    for bucket in reversed(range(len(ordered))):
        inside = np.flatnonzero(size.bucket == bucket)
        inside = inside[np.argsort(-size.tokens[inside], kind="stable")]
        steps += [(bucket, inside[i : i + batch_size]) for i in range(0, len(inside), batch_size)]
    local = shard_rows(batch_size, process_index, process_count)

    def make(step: int) -> Batch:
        bucket, chosen = steps[step]
        filled = np.pad(chosen, (0, batch_size - len(chosen)), mode="edge")[local]
        real = (np.arange(batch_size) < len(chosen))[local]
        rows = [(source, source.samples[i]) for i in filled]
        arrays = _collate(rows, processor, ordered[bucket], target=target, blank_images=blank_images)
        arrays["loss_mask"] &= real[:, None]
        return Batch(arrays, tuple(source.samples[i] for i in filled[real]), real)

    batches = stream(make, 0, len(steps), read_threads, workers=0)
    try:
        for batch in batches:
            yield unwrap(batch)
    finally:
        batches.close()


@dataclass(frozen=True)
class Sizes:
    """Of each sample of a source: its tokens, and the bucket it goes to."""

    tokens: Int32[np.ndarray, " N"]
    bucket: Int32[np.ndarray, " N"]


def measure(source: Source, processor: Processor, buckets: Sequence[Bucket], *, target: bool) -> Sizes:
    """Sizes of a source's samples among `buckets` (cheapest first), from text alone.

    Raises: PipelineError when samples fit no bucket; names how many, the longest of them and the largest
    bucket.
    """
    with _in_source(source.name):
        lengths = processor.lengths(source.samples, mode=source.mode, target=target)
    distinct, inverse = np.unique(lengths, axis=0, return_inverse=True)
    found = [smallest_bucket(tokens, patches, buckets) for tokens, patches in distinct.tolist()]
    bucket = np.array([-1 if b is None else b for b in found], np.int32)[inverse.reshape(-1)]
    if (bucket < 0).any():
        lost = np.flatnonzero(bucket < 0)
        worst = lost[np.argmax(lengths[lost].sum(1))]
        tokens, patches = lengths[worst]
        sample = source.samples[worst]
        room = buckets[-1]
        raise PipelineError(
            f"{source.name}: {len(lost)} of {len(bucket)} samples fit no bucket; sample {sample.id!r} has "
            f"{tokens} tokens and {patches} patches ({len(sample.images)} x {processor.image_size} px), "
            f"the largest bucket holds {room.tokens} tokens and {room.patches} patches"
        )
    return Sizes(lengths[:, 0].astype(np.int32), bucket)


@contextmanager
def _in_source(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # ImageError, ProcessorError, ChatError, ... name the sample and the field
        raise PipelineError(f"{name}: {error}") from error


def _digest_samples(samples: Sequence[Sample]) -> str:
    """Hash of all that decides arrays and rewards; not of where the files lie, so that a run can move."""
    digest = hashlib.sha256()
    for s in samples:
        texts = (s.question, s.options, s.answer, s.answer_text, s.reason_steps, s.report)
        digest.update(repr((s.id, s.task, s.images, texts)).encode())
    return digest.hexdigest()[:16]
