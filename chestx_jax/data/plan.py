"""Which samples make up which batch: computed once, before the first step, and the same on every process.

A stream of draws (a data set by its weight, then a sample without replacement within the epoch of that data
set) fills one queue a bucket; a queue that holds a batch is emitted. As the number of steps is known, the
whole stream is written down at the start. A batch is then a row of a table: to resume is to go on at a
later row, and every process reads its own part of the same row, so all see the same shape at the same step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32


class PlanError(ValueError):
    """Data sets, weights or sizes that no plan can be made of."""


@dataclass(frozen=True)
class Plan:
    """The batches of a run: S steps of B rows.

    Attributes:
      bucket: which bucket all rows of a step fall into.
      dataset: which data set each row comes from.
      sample: which sample of that data set.
    """

    bucket: Int32[np.ndarray, " S"]
    dataset: Int32[np.ndarray, "S B"]
    sample: Int32[np.ndarray, "S B"]

    def __len__(self) -> int:
        return len(self.bucket)

    def shard(self, index: int, count: int) -> "Plan":
        """The part of process `index` of `count`: its contiguous B / count rows of every batch.

        Raises: PlanError when the batch cannot be divided evenly.
        """
        rows = shard_rows(self.dataset.shape[1], index, count)
        return Plan(self.bucket, self.dataset[:, rows], self.sample[:, rows])


def shard_rows(batch_size: int, index: int, count: int) -> slice:
    """The rows of a batch that process `index` of `count` reads: contiguous, as a mesh lays devices out.

    Raises: PlanError when the batch cannot be divided evenly.
    """
    if batch_size % count:
        raise PlanError(f"batch_size {batch_size} cannot be divided evenly among {count} processes")
    if not 0 <= index < count:
        raise PlanError(f"process {index} of {count} does not exist")
    return slice(index * batch_size // count, (index + 1) * batch_size // count)


def plan_batches(
    buckets: Sequence[Int[np.ndarray, " N"]],
    weights: Sequence[float],
    *,
    batch_size: int,
    steps: int,
    seed: int,
) -> Plan:
    """The first `steps` batches; more steps only append to fewer.

    Args:
      buckets: of each data set, the bucket of each of its samples.
      weights: of each data set, how often it is drawn; they need not sum to one, 0 leaves a data set out.
      batch_size: rows of a batch over all processes.
      seed: the run's seed; it alone decides the draws.

    Samples that wait in a queue when the plan ends belong to no batch: at most batch_size - 1 a bucket.

    Raises: PlanError on an empty data set with a weight, a bad weight, or sizes below one.
    """
    _check(buckets, weights, batch_size, steps)
    count = 1 + max(int(b.max()) for b in buckets if len(b))
    # by then, even if every queue is one short of a batch, `steps` batches have come out
    draws = steps * batch_size + count * (batch_size - 1)
    dataset = _draw_datasets(np.asarray(weights, np.float64), draws, seed)
    sample = np.empty(draws, np.int32)
    bucket = np.empty(draws, np.int32)
    for index, of_sample in enumerate(buckets):
        mine = np.flatnonzero(dataset == index)
        sample[mine] = _epochs(len(of_sample), len(mine), (seed, index))
        bucket[mine] = np.asarray(of_sample)[sample[mine]]
    rows = _fill_queues(bucket, count, batch_size)[:steps]
    return Plan(bucket[rows[:, 0]], dataset[rows], sample[rows])


def _check(buckets: Sequence[np.ndarray], weights: Sequence[float], batch_size: int, steps: int) -> None:
    if len(buckets) != len(weights) or not len(buckets):
        raise PlanError(f"{len(buckets)} data set(s), but {len(weights)} weight(s)")
    if batch_size < 1 or steps < 1:
        raise PlanError(f"batch_size {batch_size} and steps {steps} must be at least 1")
    for index, (bucket, weight) in enumerate(zip(buckets, weights, strict=True)):
        if not np.isfinite(weight) or weight < 0:
            raise PlanError(f"data set {index}: weight {weight} is not a number of at least 0")
        if weight > 0 and not len(bucket):
            raise PlanError(f"data set {index}: weight {weight}, but no samples")
    if not sum(weights) > 0:
        raise PlanError("every data set has weight 0")


def _draw_datasets(weights: np.ndarray, draws: int, seed: int) -> Int32[np.ndarray, " N"]:
    # one double a draw, whatever their number: this is what makes a longer plan begin with the shorter one
    uniform = np.random.Generator(np.random.PCG64((seed, len(weights)))).random(draws)
    edges = np.cumsum(weights / weights.sum())
    edges[np.flatnonzero(weights)[-1] :] = 1.0  # against rounding below one
    return np.searchsorted(edges, uniform, side="right").astype(np.int32)


def _epochs(size: int, draws: int, seed: tuple[int, int]) -> Int32[np.ndarray, " N"]:
    """`draws` indices: one permutation of `size` after another, each shuffled by its own seed."""
    if not draws:
        return np.empty(0, np.int32)
    rounds = range(-(-draws // size))
    shuffled = [np.random.Generator(np.random.PCG64((*seed, 1, r))).permutation(size) for r in rounds]
    return np.concatenate(shuffled)[:draws].astype(np.int32)


def _fill_queues(bucket: np.ndarray, count: int, batch_size: int) -> Int[np.ndarray, "S B"]:
    """Draws of each full batch, batches in the order in which their last draw came."""
    full = [np.empty((0, batch_size), np.int64)]
    for index in range(count):
        queue = np.flatnonzero(bucket == index)
        full.append(queue[: len(queue) // batch_size * batch_size].reshape(-1, batch_size))
    batches = np.concatenate(full)
    return batches[np.argsort(batches[:, -1], kind="stable")]
