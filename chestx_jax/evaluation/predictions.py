"""The predictions file: one JSON object a line, appended as it is made, resumed where it stopped."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chestx_jax.storage import Mirror

SETTINGS = ".settings.json"
PUSH_EVERY = 30.0


class PredictionError(Exception):
    """A predictions file that cannot be used; the message names file, line and field."""


def read_predictions(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by sample id.

    Raises:
      PredictionError: naming the line, on broken JSON, a missing or wrong-typed field, or an id that comes twice.
    """
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        row = _parse(line, f"{path}:{number}")
        if row["id"] in rows:
            raise PredictionError(f"{path}:{number}: id {row['id']!r} is there twice")
        rows[row["id"]] = row
    return rows


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise PredictionError(f"{place}: not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise PredictionError(f"{place}: not a JSON object")
    for field in ("id", "prediction"):
        if not isinstance(row.get(field), str):
            raise PredictionError(f"{place}: field {field!r} is missing or not a string")
    return row


class PredictionWriter:
    """Appends rows; on opening, drops a last line that a kill cut short and knows what is done.

    In a bucket the file is written anew every `PUSH_EVERY` seconds and on closing; a kill loses what came since.

    The settings that made the file lie beside it, so that a rerun with others is refused instead of mixing two
    models' outputs.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        self._files, self._pushed = Mirror(path.parent), time.monotonic()
        self._files.pull((path.name, path.with_suffix(SETTINGS).name))
        path = self._files.here / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._check_settings(path, dict(settings))
        if path.exists():
            _drop_partial_line(path)
            self.done = frozenset(read_predictions(path))
        else:
            self.done = frozenset()
        self._file = path.open("a")

    @staticmethod
    def _check_settings(path: Path, settings: dict[str, Any]) -> None:
        beside = path.with_suffix(SETTINGS)
        if path.exists() and beside.exists():
            before = json.loads(beside.read_text())
            differing = sorted(
                key for key in before.keys() | settings if before.get(key) != settings.get(key)
            )
            if differing:
                raise PredictionError(
                    f"{path} was made with other settings ("
                    + ", ".join(f"{key}: {before.get(key)!r}, now {settings.get(key)!r}" for key in differing)
                    + "); give another --out or remove the file"
                )
        beside.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows and flush."""
        for row in rows:
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()
        if time.monotonic() - self._pushed > PUSH_EVERY:
            self._files.push()
            self._pushed = time.monotonic()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        with self._files:
            self._files.push()


def _drop_partial_line(path: Path) -> None:
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        path.write_bytes(complete)
