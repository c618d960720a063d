"""Samples files: one JSON object a line, images relative to the file. Strict to read, atomic to write."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from chestx_jax.data.records import is_record_image
from chestx_jax.data.schema import FIELDS, Sample, SampleError, check_sample
from chestx_jax.storage import is_cloud, on_this_machine, to_path


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(FIELDS, (_is_text, "a string")),
    "patient": (lambda v: v is None or _is_text(v), "a string or null"),
    "images": (_is_texts, "a list of strings"),
    "options": (lambda v: v is None or _is_texts(v), "a list of strings or null"),
    "reason_steps": (lambda v: v is None or _is_texts(v), "a list of strings or null"),
}
_OPTIONAL = ("reason_steps",)  # an answer-only sample may leave it out


def sample_from_json(record: Any, root: Path, where: str) -> Sample:
    """One decoded line -> Sample. `where` (file and line) opens every message.

    Raises:
      SampleError: with all problems of the record.
    """
    if not isinstance(record, Mapping):
        raise SampleError([f"{where}: expected a JSON object, found {type(record).__name__}"])
    problems = [
        f"{where}: field '{name}': missing" for name in FIELDS if name not in record and name not in _OPTIONAL
    ]
    for name, (is_valid, expected) in _TYPES.items():
        if name in record and not is_valid(record[name]):
            found = json.dumps(record[name], ensure_ascii=False)[:80]
            problems.append(f"{where}: field '{name}': expected {expected}, found {found}")
    if problems:
        raise SampleError(problems)
    options = record["options"]
    sample = Sample(
        **{name: record[name] for name in FIELDS if _TYPES[name][0] is _is_text},
        patient=record["patient"],
        images=tuple(record["images"]),
        options=None if options is None else tuple(options),
        reason_steps=tuple(record.get("reason_steps") or ()),
        root=root,
        extra={name: value for name, value in record.items() if name not in FIELDS},
    )
    problems = [f"{where}: field '{name}': {what}" for name, what in check_sample(sample)]
    if problems:
        raise SampleError(problems)
    return sample


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """The JSON object of one line; unknown fields come last, as they were read."""
    record = {name: vars(sample)[name] for name in FIELDS}
    return {**{n: list(v) if isinstance(v, tuple) else v for n, v in record.items()}, **sample.extra}


def read_samples(path: str | os.PathLike[str]) -> list[Sample]:
    """Every sample of a JSONL file, in the file's order. Lines that hold white space only are passed over.
    The file may lie in a bucket, and its images then do, too.

    Raises:
      SampleError: all bad lines at once, each problem with file, line and field; a repeated id is one.
      FileNotFoundError: no such file.
      StorageError: a bucket that cannot be used.
    """
    path = to_path(path)
    root = path.parent if is_cloud(path) else path.absolute().parent
    samples: list[Sample] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(
        path.read_bytes().split(b"\n"), start=1
    ):  # not splitlines: U+2028 is text here
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            sample = sample_from_json(json.loads(line.decode("utf-8-sig")), root, where)
        except SampleError as error:
            problems.extend(error.problems)
            continue
        except ValueError as error:  # bad UTF-8 or bad JSON
            problems.append(f"{where}: not a line of JSON: {error}")
            continue
        if sample.id in first_line:
            problems.append(
                f"{where}: field 'id': {sample.id!r} was used in line {first_line[sample.id]} already"
            )
        if any(is_cloud(image) and is_record_image(image) for image in sample.image_paths):
            problems.append(
                f"{where}: field 'images': an ArrayRecord file must be on this machine, not in a bucket"
            )
        first_line.setdefault(sample.id, number)
        samples.append(sample)
    if problems:
        raise SampleError(problems)
    return samples


def write_samples(path: str | os.PathLike[str], samples: Iterable[Sample]) -> int:
    """Writes the samples to `path`, atomically; returns their number. What it writes, `read_samples` reads.

    Images of a sample that was read from another directory are rewritten relative to `path`.

    Raises:
      SampleError: a sample breaks the schema's rules or an id repeats; nothing is written then.
      StorageError: `path` is in a bucket.
    """
    path = on_this_machine(path, "path", "write it on a disk and copy it")
    lines: list[str] = []
    problems: list[str] = []
    seen: set[str] = set()
    for sample in samples:
        where = f"{path}: sample {sample.id!r}"
        problems.extend(f"{where}: field '{name}': {what}" for name, what in check_sample(sample))
        if sample.id in seen:
            problems.append(f"{where}: field 'id': used twice")
        seen.add(sample.id)
        record = sample_to_json(sample) | {"images": _images_for(sample, path.absolute().parent)}
        try:
            line = json.dumps(record, ensure_ascii=False, allow_nan=False)
            line.encode("utf-8")
        except (ValueError, TypeError) as error:  # NaN, a lone surrogate, an object JSON does not know
            problems.append(f"{where}: cannot be written as JSON: {error}")
            continue
        lines.append(line + "\n")
    if problems:
        raise SampleError(problems)
    with atomic_text(path) as file:
        file.writelines(lines)
    return len(lines)


def _images_for(sample: Sample, directory: Path) -> list[str]:
    if is_cloud(sample.root):
        return [str(image) for image in sample.image_paths]
    if sample.root == Path() or sample.root.absolute() == directory:
        return list(sample.images)
    here = sample.root.absolute()
    return [i if is_cloud(i) else os.path.relpath(here / i, directory) for i in sample.images]


@contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
