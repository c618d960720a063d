"""A process pool that keeps the order of a stream and never reads far ahead of it."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
_AHEAD = 3  # items a process


def ordered_map(function: Callable[[Item], Made], items: Iterable[Item], processes: int) -> Iterator[Made]:
    """`map(function, items)` in `processes` processes; the same results in the same order for any number.

    Function, items and results must be picklable when there is more than one process. The processes are
    spawned, not forked: the caller may have threads. An error in one of them is raised here, and they end with
    the caller, however it ends.
    """
    if processes == 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _end_with_parent) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= _AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """In a worker: left alone by a caller that was killed, it would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
