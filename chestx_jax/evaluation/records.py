"""JSONL files of records, plain or gzipped, whose errors name file, line and field."""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class RecordError(Exception):
    """A record that cannot be used; the message names file, line and field."""


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", record) for each line that is not blank; a name ending in ".gz" is unzipped.

    Raises:
      RecordError: a line that is no JSON object, or a broken gzip file.
      FileNotFoundError: no such file.
    """
    number = 0
    with (
        gzip.open(path.open("rb"), "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as lines
    ):
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", _decoded(line, f"{path}:{number}")
        except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
            raise RecordError(f"{path}: cannot be read after line {number}: {error}") from error


def _decoded(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"{place}: not JSON ({error.msg})") from error
    if not isinstance(record, dict):
        raise RecordError(f"{place}: not a JSON object")
    return record


def text_field(record: Mapping[str, Any], name: str, place: str) -> str:
    """The field's string.

    Raises:
      RecordError: it is missing or no string.
    """
    if not isinstance(record.get(name), str):
        raise RecordError(f"{place}: field {name!r} is missing or not a string")
    return record[name]
