"""Files that grow, for a bucket, which takes whole files only."""

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from chestx_jax.storage.paths import is_cloud


class Mirror:
    """A directory of this machine to write in, whose files `push` brings to `target`.

    A `target` on this machine is its own mirror: there is nothing to bring. A context: leaving it forgets what was not
    pushed.

    Attributes:
      here: the directory to write in.
    """

    def __init__(self, target: Path):
        self._target = target
        self._pushed: dict[str, tuple[int, int]] = {}
        self._stack = ExitStack()
        self.here = target
        if is_cloud(target):
            root = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="chestx_jax-"))
            # the bucket's name is part of the directory's, so that messages that name a file say which one it is
            self.here = Path(root, *target.parts[1:])
            self.here.mkdir(parents=True)

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def pull(self, names: Iterable[str]) -> None:
        """Fetch those of the files, and of the files of the directories, that the target holds."""
        if self.here == self._target:
            return
        for name in names:
            source = self._target / name
            inside = [f"{name}/{path.name}" for path in source.iterdir()] if source.is_dir() else [name]
            for file in inside:
                if (self._target / file).is_file():
                    (self.here / file).parent.mkdir(parents=True, exist_ok=True)
                    (self.here / file).write_bytes((self._target / file).read_bytes())
                    self._pushed[file] = _state(self.here / file)

    def push(self) -> None:
        """Bring every file that has changed since it was last brought, each as a whole."""
        if self.here == self._target:
            return
        for path in sorted(self.here.rglob("*")):
            name = path.relative_to(self.here).as_posix()
            if path.is_file() and self._pushed.get(name) != (state := _state(path)):
                (self._target / name).write_bytes(path.read_bytes())
                self._pushed[name] = state


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
