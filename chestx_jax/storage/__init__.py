"""Where files lie: on this machine, or in a bucket (`gs://`, `s3://`).

    to_path("gs://bucket/bench") / "binary" / "train.jsonl"

`to_path` turns what a user wrote into a path; the rest of the code reads, lists and writes through it and need not
know. What no bucket can do is solved once each: mapping a file (`read_ranges`), files that a library opens by name
(`small_files`), files that grow (`Mirror`). What needs a disk says so at the start (`on_this_machine`).
"""

from chestx_jax.storage.files import File, files_below, read_ranges, size_of, small_files
from chestx_jax.storage.mirror import Mirror
from chestx_jax.storage.paths import StorageError, absolute, is_cloud, on_this_machine, to_path

__all__ = [
    "File",
    "Mirror",
    "StorageError",
    "absolute",
    "files_below",
    "is_cloud",
    "on_this_machine",
    "read_ranges",
    "size_of",
    "small_files",
    "to_path",
]
