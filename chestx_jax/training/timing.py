"""Where the time of a run goes, and what the device makes of it."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import jax

from chestx_jax.parallel.chips import peak_flops

COMPILE, DATA_WAIT, STEP, EVAL, SAVE = "compile", "data_wait", "step", "eval", "save"
GIB = 2**30


@dataclass
class Timing:
    """Seconds of the loop by phase: `compile` (the first step of a life, which compiles), `data_wait`, `step`, `eval`
    and `save` (its part that the loop waits for)."""

    began: float
    total: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _new: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds inside as `name`."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self.total[name] += seconds
            self._new[name] += seconds

    def take(self, tokens: float, flops: float) -> dict[str, float]:
        """What to write beside a step: the seconds since it was last asked, and rates over them.

        Args:
          tokens, flops: those of the step, on all devices; 0 where they are not known.

        Returns:
          seconds/<phase>; data_wait_share, of this life's loop; goodput, the share of this life's wall time that went
          into steps; tokens_per_second and mfu (model FLOPs a second over the devices' published peak, where that is
          known), both without evaluation and saving; hbm_gib in use and hbm_peak_gib of the fullest local device,
          where it tells.
        """
        new, self._new = self._new, defaultdict(float)
        told = {f"seconds/{name}": seconds for name, seconds in new.items()}
        told["data_wait_share"] = self.total[DATA_WAIT] / max(sum(self.total.values()), 1e-9)
        told["goodput"] = self.total[STEP] / max(time.monotonic() - self.began, 1e-9)
        busy = new[STEP] + new[DATA_WAIT]
        if busy and not new[COMPILE]:
            told["tokens_per_second"] = tokens / busy
            if flops and (peak := peak_flops(jax.devices()[0].device_kind)):
                told["mfu"] = flops / busy / (peak * jax.device_count())
        return {**told, **memory()}


def memory() -> Mapping[str, float]:
    """Memory of the fullest local device; empty where devices do not tell (CPU)."""
    stats = [found for device in jax.local_devices() if (found := device.memory_stats())]
    if not stats:
        return {}
    return {
        "hbm_gib": max(found["bytes_in_use"] for found in stats) / GIB,
        "hbm_peak_gib": max(found["peak_bytes_in_use"] for found in stats) / GIB,
    }
