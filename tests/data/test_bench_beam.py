"""The build on Apache Beam's direct runner: the single machine's files, to the byte."""

from pathlib import Path

import pytest

beam = pytest.importorskip("apache_beam", reason="the beam extra is not installed")

from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from PIL import Image  # noqa: E402

from chestx_jax.data.bench import Recipe, build_bench  # noqa: E402
from chestx_jax.data.bench.beam import build_bench_beam  # noqa: E402
from chestx_jax.data.sources import Request, read_studies  # noqa: E402


@pytest.mark.parametrize("sampling", ["balanced", "published"])
def test_same_files_as_on_one_machine(tmp_path: Path, sampling: str) -> None:
    recipe = Recipe(sampling=sampling, longest_side=64)
    request = Request(None, tmp_path / "pictures", 150, 0, 16)
    studies = read_studies("phantom", request, lambda record: None)
    ours = build_bench(studies, tmp_path / "one", recipe, progress=None)
    options = PipelineOptions(["--runner=DirectRunner"])
    theirs = build_bench_beam("phantom", request, tmp_path / "beam", recipe, options)
    assert ours == theirs and ours["samples"] > 100
    for file in sorted((tmp_path / "one").rglob("*")):
        if file.is_file():
            other = tmp_path / "beam" / file.relative_to(tmp_path / "one")
            assert other.read_bytes() == file.read_bytes()
    assert not (tmp_path / "beam" / ".beam").exists()


def test_rejected_records_are_listed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("L", (40, 40), 9).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "reports.csv").write_text(
        "accession,file,text\n1,a.png,Small pleural effusion.\n2,gone.png,No effusion.\n"
    )
    columns = {"study": "accession", "image": "file", "report": "text"}
    request = Request(tmp_path / "in", tmp_path / "out", 0, 0, 0, columns)
    stats = build_bench_beam(
        "folder", request, tmp_path / "beam", Recipe(), PipelineOptions(["--runner=DirectRunner"])
    )
    lines = (tmp_path / "beam" / "rejected.jsonl").read_text().splitlines()
    assert "gone.png" in lines[0] + lines[-1] and stats["rejected"] == len(lines) and stats["studies"] == 1
