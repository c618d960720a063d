"""Buckets on this machine: gs:// from a local server, through every client that a run uses; s3:// from memory.

The server speaks Cloud Storage's HTTP interface to gcsfs, to Google's client (which Orbax asks about the bucket) and to
TensorStore (which writes the arrays), so nothing of the way to a bucket is replaced.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from chestx_jax.storage import to_path
from tests.processes import free_port


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of the local server; every client in this process is pointed at it."""
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = (
        "false"  # it would ask Google what kind of bucket this is
    )
    pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    port = free_port()
    running = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    running.start()
    url = f"http://127.0.0.1:{port}"
    told = {
        "STORAGE_EMULATOR_HOST": url,  # gcsfs and google-cloud-storage
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # TensorStore's
        "GOOGLE_CLOUD_PROJECT": "test",
        "NO_GCE_CHECK": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        yield url
    running.stop()


@pytest.fixture
def gs(server: str) -> Path:
    """A new directory in the bucket of the local server."""
    return to_path(f"gs://bucket/{uuid.uuid4().hex}")


class MemoryS3(MemoryFileSystem):
    """s3:// in this process's memory."""

    protocol = ("s3", "s3a")
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(os.fspath(path).removeprefix("s3://"))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new directory of a bucket in memory."""
    pytest.importorskip("s3fs")
    before = fsspec.get_filesystem_class("s3")
    fsspec.register_implementation("s3", MemoryS3, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield to_path(f"s3://bucket/{uuid.uuid4().hex}")
    fsspec.register_implementation("s3", before, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()


def upload(source: Path, target: Path) -> Path:
    """Copies a directory into a bucket."""
    for file in source.rglob("*"):
        if file.is_file():
            (target / file.relative_to(source).as_posix()).write_bytes(file.read_bytes())
    return target
