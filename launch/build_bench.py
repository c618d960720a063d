"""Builds RadRBench-CXR from a collection of radiographs and reports: questions, reasoning, checks, data card.

python -m launch.build_bench --source=openi --root=/data/openi --out=/data/bench
python -m launch.build_bench --source=phantom --studies=2000 --image_size=112 --out=/data/phantom
python -m launch.build_bench --source=folder --root=/data/ours --column=study=accession --column=report=text --out=..

python -m launch.build_bench --source=openi --root=/data/openi --out=/data/bench --miner=llm \\
    --llm_base_url=http://127.0.0.1:8000/v1 --llm_model=qwen2.5-72b [--dry_run --prices=2.5,10]

Run the same line again after an interruption: it goes on. docs/data.md says what comes out.
"""

import os
from pathlib import Path

from absl import flags

from chestx_jax.data.bench import MINERS, BenchError, Recipe, build_bench, preview
from chestx_jax.data.bench.tell import shortcut_table, summary
from chestx_jax.data.mining import MiningError, estimate_llm, mine_llm
from chestx_jax.data.questions import SAMPLINGS, QuestionError
from chestx_jax.data.schema import TASKS, SampleError
from chestx_jax.data.sources import (
    SOURCES,
    Rejected,
    Request,
    SourceError,
    columns_of_flags,
    read_studies,
    tasks_of,
)
from chestx_jax.llm import Endpoint, LLMError
from chestx_jax.storage import StorageError, on_this_machine
from launch import language_model
from launch.program import start

flags.adopt_module_key_flags(language_model)
_SOURCE = flags.DEFINE_enum("source", None, sorted(SOURCES), "Which collection to read.", required=True)
_ROOT = flags.DEFINE_string("root", None, "Directory of the collection; none for phantom.")
_OUT = flags.DEFINE_string(
    "out", None, "Directory for <task>/<split>.jsonl and what goes with them.", required=True
)
_TASKS = flags.DEFINE_multi_enum("task", list(TASKS), list(TASKS), "Questions to build; repeat for several.")
_SEED = flags.DEFINE_integer("seed", 0, "Fixes every draw.")
_SAMPLING = flags.DEFINE_enum(
    "sampling",
    "balanced",
    sorted(SAMPLINGS),
    "balanced: text alone gets no more than chance; published: counts and distractors of the paper's scripts; "
    "everything: all questions.",
)
_MINER = flags.DEFINE_enum(
    "miner", "rules", MINERS, "Where reasoning comes from, unless the source brings it."
)
_PRICES = flags.DEFINE_list(
    "prices", ["0", "0"], "llm: for --dry_run, per million prompt and completion tokens."
)
_LONGEST_SIDE = flags.DEFINE_integer(
    "longest_side", 512, "Images are stored at most so long; 0 leaves them where they are.", lower_bound=0
)
_RECORDS = flags.DEFINE_bool(
    "records", False, "Also write TFDS ArrayRecord files, OUT/radrbench/<source>_<task> (the data extra)."
)
_COLUMNS = flags.DEFINE_multi_string(
    "column",
    [],
    "folder: FIELD=COLUMN of reports.csv; fields: study, image, report, .. (data/sources/folder.py).",
)
_STUDIES = flags.DEFINE_integer("studies", 1000, "phantom: how many studies to make.", lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 448, "phantom: side of the images in pixels.", lower_bound=1)
_BEAM = flags.DEFINE_multi_string(
    "beam",
    [],
    "An option of Apache Beam, which then runs the build (the beam extra); repeat for several: "
    "--beam=--runner=FlinkRunner --beam=--flink_master=HOST:PORT.",
)
_PROCESSES = flags.DEFINE_integer("processes", os.cpu_count() or 1, "Worker processes.", lower_bound=1)


def main() -> None:
    """See the module's docstring."""
    out = on_this_machine(_OUT.value, "--out", "build on a disk, then copy the directory")
    recipe = Recipe(
        tasks=tuple(tasks_of(_SOURCE.value, _TASKS.value)),
        seed=_SEED.value,
        sampling=_SAMPLING.value,
        miner=_MINER.value,
        longest_side=_LONGEST_SIDE.value or None,
    )
    request = Request(
        None if _ROOT.value is None else on_this_machine(_ROOT.value, "--root", "copy or mount it"),
        out,
        _STUDIES.value,
        _SEED.value,
        _IMAGE_SIZE.value,
        columns_of_flags(_COLUMNS.value),
        _PROCESSES.value,
    )
    if language_model.DRY_RUN.value:
        prompt, completion = (float(price) for price in _PRICES.value)
        samples = preview(read_studies(_SOURCE.value, request, lambda record: None), recipe)
        print(estimate_llm(samples, *llm_arguments(out)).summary(prompt, completion))
        return
    mine = (lambda samples: mine_llm(samples, *llm_arguments(out))) if recipe.miner == "llm" else None
    if _BEAM.value:
        from apache_beam.options.pipeline_options import PipelineOptions

        from chestx_jax.data.bench.beam import build_bench_beam

        stats = build_bench_beam(_SOURCE.value, request, out, recipe, PipelineOptions(_BEAM.value), mine=mine)
    else:
        rejected: list[Rejected] = []
        studies = read_studies(_SOURCE.value, request, rejected.append)
        stats = build_bench(studies, out, recipe, rejected=rejected, processes=_PROCESSES.value, mine=mine)
    if _RECORDS.value:
        import tensorflow_datasets as tfds

        from chestx_jax.data.radrbench import write_records

        tfds.disable_progress_bar()  # one a split and task
        write_records(out, _SOURCE.value, recipe.tasks)
    print(summary(stats))
    print(shortcut_table(stats))
    print(f"the data card is {out / 'README.md'}, the numbers are in {out / 'stats.json'}")


def llm_arguments(out: Path) -> tuple[Endpoint, Path, Path | None]:
    """Endpoint, working directory and prompts of the miner."""
    endpoint = language_model.endpoint()
    if endpoint is None:
        raise BenchError("--miner=llm needs --llm_base_url and --llm_model")
    return endpoint, out / "mining", language_model.prompts()


if __name__ == "__main__":
    start(main, (BenchError, LLMError, MiningError, QuestionError, SampleError, SourceError, StorageError))
