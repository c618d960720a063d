"""A process pool that keeps the order of a stream and never reads far ahead of it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
_AHEAD = 3  # items a process


def ordered_map(function: Callable[[Item], Made], items: Iterable[Item], processes: int) -> Iterator[Made]:
    """`map(function, items)` in `processes` processes; the same results in the same order for any number.

    Function, items and results must be picklable when there is more than one process. The processes are
    spawned, not forked: the caller may have threads. An error in one of them is raised here.
    """
    if processes == 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
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
