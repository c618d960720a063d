"""Readers of public collections, by name. A reader yields Studies and reports every record that it cannot
use.

To add a collection: a module beside this one with a function that yields `Study`, and one entry in `SOURCES`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
      processes: in how many processes such a source may work.
      columns: field -> column of a table whose columns the user names (source "folder").
    """

    root: Path | None
    out: Path
    studies: int
    seed: int
    image_size: int
    columns: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1


def read_studies(name: str, request: Request, reject: Reject) -> Iterator[Study]:
    """The studies of source `name`, lazily; `reject` is called with every record that is left out.

    Raises:
      SourceError: unknown name, a missing or superfluous root, columns for a source that takes none, or (by the
        reader) files missing under the root; at the end of the reading, that not one study was left.
    """
    if name not in SOURCES:
        raise SourceError(f"source {name!r} is none of {', '.join(sorted(SOURCES))}")
    if request.columns and name != "folder":
        raise SourceError(f"source {name!r} has its own column names and takes none")
    reasons: Counter[str] = Counter()

    def count(record: Rejected) -> None:
        reasons[record.reason] += 1
        reject(record)

    return _some(name, SOURCES[name](request, count), reasons)


def _some(name: str, studies: Iterator[Study], reasons: Counter[str]) -> Iterator[Study]:
    empty = True
    for study in studies:
        empty = False
        yield study
    if empty:
        told = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))
        raise SourceError(f"source {name!r}: no study is left of {reasons.total()} records: {told}")


def tasks_of(name: str, tasks: Sequence[str]) -> list[str]:
    """Those of `tasks` that the source's labels can answer.

    Raises:
      SourceError: none of them.
    """
    able = [task for task in tasks if task in ONLY.get(name, tasks)]
    if not able:
        raise SourceError(f"source {name!r} answers only {', '.join(ONLY[name])}, not {', '.join(tasks)}")
    return able


def columns_of_flags(pairs: Sequence[str]) -> dict[str, str]:
    """ "FIELD=COLUMN" texts -> field -> column, for `Request.columns`.

    Raises:
      SourceError: a text that is not of this form, or a field named twice.
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise SourceError(f"column {pair!r} is not of the form FIELD=COLUMN")
        if name in columns:
            raise SourceError(f"column of field {name!r} is named twice")
        columns[name] = column
    return columns


def _collection(module: str) -> Callable[[Request, Reject], Iterator[Study]]:
    """A reader `read(root, *, reject)` of a collection on disk."""

    def read(request: Request, reject: Reject) -> Iterator[Study]:
        if request.root is None:
            raise SourceError(f"source {module!r} needs the root directory of the collection")
        return _module(module).read(request.root, reject=reject)

    return read


def _folder(request: Request, reject: Reject) -> Iterator[Study]:
    if request.root is None:
        raise SourceError("source 'folder' needs the root directory of the collection")
    return _module("folder").read(request.root, request.columns, reject=reject)


def _phantom(request: Request, reject: Reject) -> Iterator[Study]:
    del reject  # every phantom is good
    if request.root is not None:
        raise SourceError("source 'phantom' makes its own studies and takes no root directory")
    return _module("phantom").studies(
        request.studies,
        seed=request.seed,
        size=request.image_size,
        out=request.out,
        processes=request.processes,
    )


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")  # on use, so that one collection's needs burden no other


SOURCES: Mapping[str, Callable[[Request, Reject], Iterator[Study]]] = {
    "chexpert": _collection("chexpert"),
    "chexpert_plus": _collection("chexpert_plus"),
    "folder": _folder,
    "mimic_cxr": _collection("mimic_cxr"),
    "ms_cxr_t": _collection("ms_cxr_t"),
    "openi": _collection("openi"),
    "phantom": _phantom,
    "rsna": _collection("rsna"),
    "serial": _collection("serial"),
    "siim": _collection("siim"),
}

ONLY: Mapping[str, tuple[str, ...]] = {"rsna": ("binary",), "siim": ("binary",), "ms_cxr_t": ("temporal",)}
"""Sources whose labels cannot answer every task. RSNA and SIIM know one finding each: what else a film shows,
which the other tasks ask for, is not known."""
