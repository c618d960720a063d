"""Timing inside a worker. Needs the standard library alone: TRL's environment has nothing of ours."""

import dataclasses
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP = 2  # calls that are not counted: the first compiles or allocates, the second may still


@dataclasses.dataclass
class Measured:
    """What a worker found.

    Attributes:
      cpu, wall: seconds of each timed call, all threads together.
      first_cpu: seconds of the very first call, compilation included.
      peak_bytes: most memory that the whole process ever held.
      work: operations that the mathematics of one call asks for; 0 where nobody counts.
      facts: what else there is to know, by name.
    """

    cpu: list[float]
    wall: list[float]
    first_cpu: float = 0.0
    peak_bytes: int = 0
    work: float = 0.0
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def repeat(call: Callable[[], Any], repeats: int, warm_up: int = WARM_UP) -> Measured:
    """Times `call`, which must not return before its work is done, after `warm_up` calls."""
    cpu, wall = [], []
    for _ in range(warm_up + repeats):
        began_cpu, began_wall = time.process_time(), time.perf_counter()
        call()
        cpu.append(time.process_time() - began_cpu)
        wall.append(time.perf_counter() - began_wall)
    return Measured(cpu[warm_up:], wall[warm_up:], first_cpu=cpu[0], peak_bytes=peak_bytes())


def peak_bytes() -> int:
    """The most memory this process held. Linux's ru_maxrss would start at the parent's: VmHWM does not."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def text_reward(completions: list[str]) -> list[float]:
    """A reward that costs nothing and differs within a group: the share of vowels."""
    return [sum(text.count(vowel) for vowel in "aeiou") / (1 + len(text)) for text in completions]
