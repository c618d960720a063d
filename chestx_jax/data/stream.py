"""Reading ahead with grain: threads, worker processes, and errors that reach whoever asked."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grain
from absl import flags

Made = TypeVar("Made")


class PipelineError(ValueError):
    """Samples that no batch can hold, or a saved state that belongs to another run."""


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a thread or a worker process to whoever asked for the batch."""

    message: str
    trace: str


def unwrap(made: Made | _Failure) -> Made:
    if isinstance(made, _Failure):
        error = PipelineError(made.message)
        error.add_note(made.trace)  # shown with a traceback, not in the message
        raise error
    return made


def stream(
    make: Callable[[int], Any], start: int, stop: int, threads: int, workers: int
) -> grain.DatasetIterator:
    """`make(start)` .. `make(stop - 1)`, read ahead. Errors travel as values: some cannot be pickled, and
    would hang."""

    def guarded(step: int) -> Any:
        try:
            return make(step)
        except Exception as error:
            message = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
            return _Failure(message, traceback.format_exc())

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    dataset = grain.MapDataset.range(start, stop).map(guarded).to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads a flag to start a worker; scripts and tests parse none
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(dataset)
