"""Images for a page: small JPEGs inside it while they fit a budget, links to the files beyond that."""

import base64
import io
import os
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from chestx_jax.data.images import ImageError, open_image
from chestx_jax.evaluation.page.parts import Picture
from chestx_jax.storage import is_cloud

SIDE = 384
"""Longest side of a thumbnail in pixels."""
QUALITY = 80
BUDGET = 12_000_000
"""Characters of thumbnails in one page."""
SHOWABLE = (".png", ".jpg", ".jpeg", ".gif", ".webp")
"""What a browser can show; of the other files only a thumbnail is."""


class Album:
    """Makes each picture once; thumbnails go in until the budget is spent.

    Args:
      out: the directory of the page, which links are relative to.
    """

    def __init__(self, out: Path, budget: int = BUDGET):
        self._out = out.resolve()
        self._left = budget
        self._made: dict[Path, Picture] = {}

    def picture(self, path: Path) -> Picture:
        """The picture at `path`; one that cannot be read says so in `missing`."""
        if path not in self._made:
            self._made[path] = self._make(path)
        return self._made[path]

    @property
    def missing(self) -> list[Picture]:
        """Those that could not be shown."""
        return [picture for picture in self._made.values() if picture.missing]

    def _make(self, path: Path) -> Picture:
        link = ""
        if path.suffix.lower() in SHOWABLE and not is_cloud(path) and path.is_file():
            link = quote(os.path.relpath(path.resolve(), self._out).replace(os.sep, "/"))
        if self._left <= 0:
            return Picture(path.name, link=link, missing="" if link else "not embedded: the page is full")
        try:
            thumbnail = _thumbnail(open_image(path))
        except ImageError as error:
            return Picture(path.name, missing=str(error))
        self._left -= len(thumbnail)
        return Picture(path.name, thumbnail, link)


def _thumbnail(picture: Image.Image) -> str:
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
