"""Studies, samples, questions, the chat format, the processor and the pipeline.

Names load on first use: importing this package imports no JAX.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Study": "schema",
    "Sample": "schema",
    "SampleError": "schema",
    "read_samples": "jsonl",
    "write_samples": "jsonl",
    "load_image": "images",
    "ImageError": "images",
    "build_questions": "questions",
    "build_bench": "bench",
    "Processor": "processor",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
