"""Images of a benchmark: once a study, encoded, no larger than asked for."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from chestx_jax.data.images import open_image
from chestx_jax.data.schema import Study

QUALITY = 95
_KEPT = {".jpg": ".jpg", ".jpeg": ".jpg", ".png": ".png"}


def store_images(study: Study, folder: Path, longest_side: int) -> Study:
    """The study with its images, and its prior's, in `folder`/<two letters>/<study>_<number>.<jpg or png>.

    PNG and JPEG files that are small enough are copied to the byte; all else becomes a JPEG (quality 95) of
    at most `longest_side` pixels, its aspect ratio kept. Images that are in `folder` already stay as they are.

    Raises:
      ImageError: an image that cannot be read.
    """
    images = tuple(
        _store(path, folder, f"{quote(study.id, safe='')}_{number}", longest_side)
        for number, path in enumerate(study.images)
    )
    prior = study.prior and store_images(study.prior, folder, longest_side)
    return replace(study, images=images, prior=prior)


def _store(path: Path, folder: Path, name: str, longest_side: int) -> Path:
    if path.absolute().is_relative_to(folder.absolute()):
        return path
    picture = open_image(path)  # also where it is copied: a broken file must not get in
    place = folder / hashlib.sha256(name.encode()).hexdigest()[:2] / name
    place.parent.mkdir(parents=True, exist_ok=True)
    small = max(picture.size) <= longest_side
    if small and path.suffix.lower() in _KEPT:
        return _write(Path(f"{place}{_KEPT[path.suffix.lower()]}"), path.read_bytes())
    if not small:
        scale = longest_side / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    target = Path(f"{place}.jpg")
    temporary = _beside(target)
    picture.save(temporary, "JPEG", quality=QUALITY)
    os.replace(temporary, target)
    return target


def _write(target: Path, content: bytes) -> Path:
    temporary = _beside(target)
    temporary.write_bytes(content)
    os.replace(temporary, target)
    return target


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")
