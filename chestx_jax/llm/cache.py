"""Answers on disk, one small file each, named by the hash of the exact request."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

FIELDS = ("value", "prompt_tokens", "completion_tokens")


class AnswerCache:
    """A directory of answers; safe when killed and with several processes at once.

    A file appears under its name complete or not at all (written beside it, then renamed), and two processes
    that ask the same write the same name. A kill can leave a hidden `.tmp` file behind, which nobody reads. A
    file holds the answer and its token counts: no request, no key.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    def path(self, digest: str) -> Path:
        """Where the answer lies; 256 subdirectories keep listings short."""
        return self.directory / digest[:2] / f"{digest}.json"

    def read(self, digest: str) -> dict[str, Any] | None:
        """The stored answer, None when there is none.

        Raises:
          ValueError: the file is there and is not one of ours (a failing disk, an editor); it names the file.
        """
        path = self.path(digest)
        try:
            stored = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{path}: not a cached answer") from error
        if not isinstance(stored, dict) or any(name not in stored for name in FIELDS):
            raise ValueError(f"{path}: not a cached answer")
        return stored

    def write(self, digest: str, value: Any, prompt_tokens: int, completion_tokens: int) -> None:
        """Store an answer, atomically."""
        path = self.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = dict(zip(FIELDS, (value, prompt_tokens, completion_tokens), strict=True))
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(stored, file)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
