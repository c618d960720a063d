"""Images inside ArrayRecord files, named like files in a folder: <file>/<record>/<number>.

A record is a serialised `tf.train.Example` whose feature "images" holds the encoded bytes of a study's images
(`radrbench`). Such a path goes wherever the path of an image goes.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

IMAGES = "images"
_MARK = ".array_record-"


def is_record_image(path: Path) -> bool:
    """Whether `path` names an image inside an ArrayRecord file."""
    return len(path.parts) > 2 and _MARK in path.parts[-3]


def record_image(path: Path) -> bytes:
    """The encoded bytes of an image.

    Raises:
      FileNotFoundError: no such file. IndexError: no such record or image.
    """
    file, record, number = path.parent.parent, path.parent.name, path.name
    reader = open_records(file)
    if not int(record) < reader.num_records():
        raise IndexError(f"{file} has {reader.num_records()} records, none {record}")
    images = fields(reader.read([int(record)])[0])[IMAGES]
    if not int(number) < len(images):
        raise IndexError(f"record {record} of {file} has {len(images)} images, none {number}")
    return images[int(number)]


@lru_cache(maxsize=256)
def open_records(file: Path) -> Any:
    """A reader of an ArrayRecord file, kept open; every process has its own.

    Raises:
      FileNotFoundError: no such file.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    return ArrayRecordReader(str(file))


def fields(record: bytes) -> dict[str, list[bytes]]:
    """Every bytes feature of a serialised `tf.train.Example`."""
    from tensorflow_datasets.proto import tf_example_pb2

    features = tf_example_pb2.Example.FromString(record).features.feature
    return {name: list(feature.bytes_list.value) for name, feature in features.items()}
