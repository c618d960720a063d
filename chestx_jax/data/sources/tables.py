"""CSV tables of collections: streamed, gzip read in place, loud about what is not the table expected."""

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from chestx_jax.data.sources import Reject, Rejected, SourceError


def find_table(homes: Sequence[Path], name: str) -> Path | None:
    """The first of `name` and `name`.gz that lies in one of the directories `homes`; None if none does."""
    candidates = (home / (name + end) for home in homes for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def find_tables(collection: str, root: Path, homes: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """The path of every table of `names`.

    Raises:
      SourceError: naming those that are in none of `homes`.
    """
    found = {name: find_table(homes, name) for name in names}
    missing = [f"{name}[.gz]" for name, path in found.items() if path is None]
    if missing:
        raise SourceError(f"no {collection} collection at {root}: not found: {', '.join(missing)}")
    return [path for path in found.values() if path is not None]


def columns_of(path: Path) -> tuple[str, ...]:
    """The header of a table, without the blanks around names that some releases have.

    Raises:
      SourceError: an empty or unreadable table.
    """
    try:
        with _open(path) as file:
            header = next(csv.reader(file), None)
    except _BROKEN as error:
        raise SourceError(f"{path}: broken table: {error}") from error
    if header is None:
        raise SourceError(f"{path}: the table is empty")
    return tuple(name.strip() for name in header)


def rows(path: Path, columns: Sequence[str], reject: Reject) -> Iterator[dict[str, str]]:
    """The rows as column -> value without the blanks around it, `columns` only, lazily.

    A row with more or fewer values than the header has is rejected.

    Raises:
      SourceError: at once, a table that is empty or lacks a column; while reading, one that breaks off.
    """
    header = columns_of(path)
    missing = [column for column in columns if column not in header]
    if missing:
        raise SourceError(f"{path}: column missing: {', '.join(missing)}")
    return _rows(path, {column: header.index(column) for column in columns}, len(header), reject)


def _rows(path: Path, places: Mapping[str, int], width: int, reject: Reject) -> Iterator[dict[str, str]]:
    with _open(path) as file:
        reader = csv.reader(file)
        try:
            next(reader)
            for values in reader:
                if len(values) == width:
                    yield {column: values[place].strip() for column, place in places.items()}
                elif values:  # a blank line has none
                    reason = f"{len(values)} values, the header has {width}"
                    reject(Rejected(f"{path.name}: line {reader.line_num}", reason))
        except _BROKEN as error:
            raise SourceError(f"{path}: broken table after line {reader.line_num}: {error}") from error


def told_already(record: Rejected) -> None:
    """For `rows` of a table that is read twice: its bad rows are rejected in the other reading."""


_BROKEN = (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return open(path, newline="", encoding="utf-8-sig")
