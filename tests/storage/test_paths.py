"""What a user may write, and what the rest of the code may rely on."""

from pathlib import Path

import pytest

from chestx_jax.storage import (
    Mirror,
    StorageError,
    absolute,
    files_below,
    is_cloud,
    on_this_machine,
    read_ranges,
    size_of,
    small_files,
    to_path,
)


def test_a_path_of_this_machine_stays_one(tmp_path: Path):
    assert to_path(str(tmp_path)) == tmp_path and type(to_path("a/b")) is type(Path("a/b"))
    assert not is_cloud(tmp_path) and str(absolute("x")) == str(Path("x").absolute())


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("http://host/x", "only directories of this machine, gs:// and s3://"),
        ("gs:///x", "no bucket; expected gs://bucket/name"),
        ("gs://", "no bucket"),
        ("s3://b/../../x", "no bucket"),
    ],
)
def test_what_is_no_place_is_refused(place: str, says: str):
    with pytest.raises(StorageError, match=says):
        to_path(place)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        StorageError, match=r"gs://b/x needs the package gcsfs: pip install 'chestx_jax\[cloud\]'"
    ):
        to_path("gs://b/x")


def test_what_needs_a_disk_names_its_flag_and_what_to_do():
    with pytest.raises(
        StorageError, match=r"--out=gs://b/x must be on this machine, not in a bucket; copy it"
    ):
        on_this_machine("gs://b/x", "--out", "copy it")


@pytest.mark.parametrize("kind", ["gs", "s3"])
def test_paths_of_a_bucket_do_what_the_code_asks_of_paths(kind: str, request: pytest.FixtureRequest):
    root: Path = request.getfixturevalue(kind)
    assert is_cloud(root) and str(absolute(root)) == str(root)
    assert str(to_path(f"{root}/a/../b.txt")) == f"{root}/b.txt"
    file = root / "a" / "b.bin"
    assert not file.exists() and not root.is_dir()
    file.write_bytes(b"0123456789")
    assert file.is_file() and root.is_dir() and (root / "a").is_dir() and size_of(file) == 10
    assert [path.name for path in (root / "a").iterdir()] == ["b.bin"]
    assert read_ranges([(file, 2, 5), (file, 9, 10)]) == [b"234", b"9"]
    with pytest.raises(OSError, match=r"bytes 5 to 20 were asked for, 5 came"):
        read_ranges([(file, 5, 20)])
    with pytest.raises(FileNotFoundError):
        (root / "none").read_bytes()
    file.unlink()
    assert not file.exists()


@pytest.mark.parametrize("kind", ["tmp_path", "gs"])
def test_files_below_a_directory(kind: str, request: pytest.FixtureRequest):
    root = absolute(request.getfixturevalue(kind)) / "top"
    (root / "a" / "b").mkdir(parents=True, exist_ok=True)
    (root / "a" / "b" / "deep").write_bytes(b"12")
    (root / "z").write_bytes(b"1")
    found = files_below(root)
    assert {name: file.size for name, file in found.items()} == {"a/b/deep": 2, "z": 1}
    assert found["a/b/deep"].path.read_bytes() == b"12"
    assert [file.md5 for file in found.values()] == (
        [None, None] if kind == "tmp_path" else ["wgrU12/pd1mqJ6DJm/9nEA==", "xMpCOKC5I4INzFCab3WEmw=="]
    )


def test_small_files_are_copied_out_of_a_bucket_under_its_name(gs: Path, tmp_path: Path):
    (gs / "tokenizer.json").write_text("{}")
    (gs / "weights").write_text("large")
    found = small_files(gs, ["tokenizer.json", "vocab.json"])
    assert [path.name for path in found.iterdir()] == ["tokenizer.json"]
    assert str(found).endswith(str(gs).removeprefix("gs:/"))
    assert small_files(tmp_path, ["tokenizer.json"]) == tmp_path


def test_a_mirror_brings_what_changed_and_fetches_what_it_is_asked_for(gs: Path):
    (gs / "run.json").write_text("[1]")
    (gs / "model" / "config.json").write_text("{}")
    (gs / "large").write_text("stays there")
    with Mirror(gs) as mirror:
        mirror.pull(("run.json", "model", "absent"))
        assert (mirror.here / "run.json").read_text() == "[1]"
        assert (mirror.here / "model" / "config.json").exists() and not (mirror.here / "large").exists()
        (gs / "run.json").write_text("changed there")
        mirror.push()
        assert (gs / "run.json").read_text() == "changed there", "an unchanged file was brought"
        (mirror.here / "sub").mkdir()
        (mirror.here / "sub" / "row").write_text("1\n")
        mirror.push()
        assert (gs / "sub" / "row").read_text() == "1\n"
        here = mirror.here
    assert not here.exists()


def test_a_directory_of_this_machine_is_its_own_mirror(tmp_path: Path):
    with Mirror(tmp_path) as mirror:
        assert mirror.here == tmp_path
        mirror.pull(("x",))
        mirror.push()
    assert tmp_path.is_dir()
