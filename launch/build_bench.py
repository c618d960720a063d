"""Builds question files from a collection of radiographs and reports.

python -m launch.build_bench --source=openi --root=/data/openi --out=/data/bench
python -m launch.build_bench --source=phantom --studies=2000 --image_size=112 --out=/data/phantom
python -m launch.build_bench --source=folder --root=/data/ours --column=study=accession --column=report=text --out=..
"""

from pathlib import Path

from absl import flags

from chestx_jax.data.bench import BenchError, build_bench
from chestx_jax.data.questions import QuestionError
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
from launch.program import start

_SOURCE = flags.DEFINE_enum("source", None, sorted(SOURCES), "Which collection to read.", required=True)
_ROOT = flags.DEFINE_string("root", None, "Directory of the collection; none for phantom.")
_OUT = flags.DEFINE_string(
    "out", None, "Directory for <task>/<split>.jsonl and what goes with them.", required=True
)
_TASKS = flags.DEFINE_multi_enum("task", list(TASKS), list(TASKS), "Questions to build; repeat for several.")
_SEED = flags.DEFINE_integer("seed", 0, "Fixes every draw.")
_COLUMNS = flags.DEFINE_multi_string(
    "column",
    [],
    "folder: FIELD=COLUMN of reports.csv; fields: study, image, report, .. (data/sources/folder.py).",
)
_STUDIES = flags.DEFINE_integer("studies", 1000, "phantom: how many studies to make.", lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 448, "phantom: side of the images in pixels.", lower_bound=1)


def main() -> None:
    """See the module's docstring."""
    out = Path(_OUT.value)
    root = None if _ROOT.value is None else Path(_ROOT.value)
    rejected: list[Rejected] = []
    request = Request(
        root, out, _STUDIES.value, _SEED.value, _IMAGE_SIZE.value, columns_of_flags(_COLUMNS.value)
    )
    studies = read_studies(_SOURCE.value, request, rejected.append)
    tasks = tasks_of(_SOURCE.value, _TASKS.value)
    stats = build_bench(studies, out, tasks, _SEED.value, rejected=rejected)
    print(f"{'task':<10}{'split':<12}{'samples':>9}{'reasoning':>11}  answers")
    for task, splits in stats["tasks"].items():
        for split, row in splits.items():
            answers = " ".join(f"{letter}:{count}" for letter, count in row["answers"].items())
            print(f"{task:<10}{split:<12}{row['samples']:>9}{row['with_reasoning']:>11}  {answers}")
    print(
        f"{stats['studies']} studies used, {stats['studies_without_question']} of them without a question, "
        f"{stats['rejected']} records rejected; see {out / 'stats.json'}"
    )


if __name__ == "__main__":
    start(main, (BenchError, QuestionError, SampleError, SourceError))
