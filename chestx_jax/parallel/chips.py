"""Published peaks of accelerators."""

import dataclasses
import functools
import tomllib
from importlib import resources


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one chip; see chips.toml for units and sources."""

    accelerator: str
    device_kinds: list[str]
    flops: float
    hbm_gib: float
    hbm: float
    ici: float
    dcn: float
    source: str


@functools.cache
def chips() -> dict[str, Chip]:
    """The chips of chips.toml by name."""
    text = resources.files("chestx_jax.parallel").joinpath("chips.toml").read_text()
    return {name: Chip(**fields) for name, fields in tomllib.loads(text).items()}


def peak_flops(device_kind: str) -> float | None:
    """bfloat16 operations a second of a device, by JAX's name for its kind; None where it is not in chips.toml."""
    return next((chip.flops for chip in chips().values() if device_kind in chip.device_kinds), None)
