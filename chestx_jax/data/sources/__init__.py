"""Readers of public collections, by name. A reader yields Studies and reports every record that it cannot
use.

To add a collection: a module beside this one with a function that yields `Study`, and one entry in `SOURCES`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from chestx_jax.data.schema import Study


class SourceError(ValueError):
    """A collection that is not where or what it should be; the message names the files looked for."""


@dataclass(frozen=True)
class Rejected:
    """A record that gave no study, and why."""

    record: str
    reason: str


Reject = Callable[[Rejected], None]


@dataclass(frozen=True)
class Request:
    """What a reader may be asked for; each takes from it what it needs.

    Attributes:
      root: directory of the collection as it was downloaded; None for a source that makes its own studies.
      out: directory in which such a source puts its files.
      studies, seed, image_size: how many studies such a source makes, from which seed, in pixels a side.
    """

    root: Path | None
    out: Path
    studies: int
    seed: int
    image_size: int


def read_studies(name: str, request: Request, reject: Reject) -> Iterator[Study]:
    """The studies of source `name`, lazily; `reject` is called with every record that is left out.

    Raises:
      SourceError: unknown name, a missing or superfluous root, or (by the reader) files missing under it.
    """
    if name not in SOURCES:
        raise SourceError(f"source {name!r} is none of {', '.join(sorted(SOURCES))}")
    return SOURCES[name](request, reject)


def _collection(module: str) -> Callable[[Request, Reject], Iterator[Study]]:
    """A reader `read(root, *, reject)` of a collection on disk."""

    def read(request: Request, reject: Reject) -> Iterator[Study]:
        if request.root is None:
            raise SourceError(f"source {module!r} needs the root directory of the collection")
        return _module(module).read(request.root, reject=reject)

    return read


def _phantom(request: Request, reject: Reject) -> Iterator[Study]:
    del reject  # every phantom is good
    if request.root is not None:
        raise SourceError("source 'phantom' makes its own studies and takes no root directory")
    return _module("phantom").studies(
        request.studies, seed=request.seed, size=request.image_size, out=request.out
    )


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")  # on use, so that one collection's needs burden no other


SOURCES: Mapping[str, Callable[[Request, Reject], Iterator[Study]]] = {
    "openi": _collection("openi"),
    "phantom": _phantom,
}
