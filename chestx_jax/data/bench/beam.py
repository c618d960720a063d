"""The build on Apache Beam: the functions of the single machine, spread over the workers of any runner.

Reading streams on one worker, the rest spreads: studies are prepared, sampling looks at the ballots of one split
and task at a time, questions are finished beside their study. Workers see `out` and the collection under the
same paths (a shared disk): images and working files go straight to `out`. When the pipeline is done, this
process puts the working files into the order of the source and writes the benchmark, the same to the byte as
the single machine's.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from chestx_jax.data.bench.finish import Mine, finish, rules_miner
from chestx_jax.data.bench.prepare import Numbered, Prepared, ballots_of, numbered, prepare
from chestx_jax.data.bench.recipe import Recipe
from chestx_jax.data.bench.write import Totals, finished_to_json, write_bench
from chestx_jax.data.questions import SAMPLINGS, Ballot
from chestx_jax.data.sources import Rejected, Request, read_studies

WORK = ".beam"


def build_bench_beam(
    source: str,
    request: Request,
    out: str | os.PathLike[str],
    recipe: Recipe,
    options: PipelineOptions,
    *,
    mine: Mine | None = None,
) -> dict[str, Any]:
    """Builds the benchmark of source `source` in `out` and returns its statistics, as `build_bench` does.

    Args:
      options: of Beam: runner, workers, and so on.
      mine: mines the reasoning where `recipe.miner` is "llm"; must be picklable.

    Raises:
      As `build_bench` and `read_studies`; Beam may wrap errors of its workers.
    """
    out = Path(out)
    work = (out / WORK).absolute()
    shutil.rmtree(work, ignore_errors=True)
    with beam.Pipeline(options=options) as pipeline:
        _wire(pipeline, source, request, out.absolute(), recipe, mine, work)
    rejected = sorted(_lines(work, "rejected"), key=lambda line: (line["record"], line["reason"]))
    counts = {line["what"]: line["count"] for line in _lines(work, "counts")}
    totals = Totals(
        studies=counts["studies"],
        silent=counts.get("silent", 0),
        rejected=tuple(Rejected(**line) for line in rejected),
        built={task: counts.get(f"built {task}", 0) for task in recipe.tasks},
    )
    stats = write_bench(out, _in_order(work), recipe, totals)
    shutil.rmtree(work)
    return stats


def _wire(
    pipeline: beam.Pipeline,
    source: str,
    request: Request,
    out: Path,
    recipe: Recipe,
    mine: Mine | None,
    work: Path,
) -> None:
    read = (
        pipeline
        | "source" >> beam.Create([source])
        | "read" >> beam.FlatMap(_read, request)
        | "spread" >> beam.Reshuffle()
        | "prepare" >> beam.Map(_prepare)
    )
    prepared = read | "studies" >> beam.Filter(_is_prepared).with_output_types(Prepared)
    rejected = read | "rejected" >> beam.Filter(_is_rejected).with_output_types(Rejected)
    ballots = prepared | "ballots" >> beam.FlatMap(_ballots, recipe)
    elected = ballots | "contests" >> beam.GroupByKey() | "elect" >> beam.FlatMap(_elect, recipe)
    finished = (
        {"study": prepared | "by number" >> beam.Map(_by_number), "elected": elected}
        | "meet" >> beam.CoGroupByKey()
        | "finish" >> beam.FlatMap(partial(_finish, recipe=recipe, out=out, mine=mine))
    )
    counts = (
        prepared | "events" >> beam.FlatMap(_events, recipe) | "count" >> beam.combiners.Count.PerElement()
    )
    _write(finished, "finished", work)
    _write(rejected | "rejected records" >> beam.Map(asdict), "rejected", work)
    _write(counts | "counted" >> beam.MapTuple(_counted), "counts", work)


def _write(records: Any, name: str, work: Path) -> None:
    lines = records | f"{name} lines" >> beam.Map(partial(json.dumps, ensure_ascii=False))
    _ = lines | f"write {name}" >> beam.io.WriteToText(str(work / name), file_name_suffix=".jsonl")


def _read(source: str, request: Request) -> Iterator[Numbered | Rejected]:
    rejected: list[Rejected] = []
    for study in numbered(read_studies(source, request, rejected.append)):
        yield study
        while rejected:
            yield rejected.pop()
    yield from rejected


def _prepare(entry: Numbered | Rejected) -> Prepared | Rejected:
    return entry if isinstance(entry, Rejected) else prepare(entry)


def _is_prepared(entry: Prepared | Rejected) -> bool:
    return isinstance(entry, Prepared)


def _is_rejected(entry: Prepared | Rejected) -> bool:
    return isinstance(entry, Rejected)


def _by_number(prepared: Prepared) -> tuple[int, Prepared]:
    return prepared.number, prepared


def _ballots(prepared: Prepared, recipe: Recipe) -> Iterator[tuple[str, tuple[int, Ballot]]]:
    for ballot in ballots_of(prepared, recipe):
        yield f"{ballot.split}|{ballot.task}", (prepared.number, ballot)


def _elect(
    contest: tuple[str, Iterable[tuple[int, Ballot]]], recipe: Recipe
) -> Iterator[tuple[int, tuple[str, tuple[str, ...] | None]]]:
    """(number of the study, (id of a question that is in, its options))."""
    standing = list(contest[1])
    elected = SAMPLINGS[recipe.sampling]([ballot for _, ballot in standing], recipe.seed)
    for number, ballot in standing:
        if ballot.id in elected:
            yield number, (ballot.id, elected[ballot.id])


def _finish(
    met: tuple[int, Mapping[str, Iterable[Any]]], recipe: Recipe, out: Path, mine: Mine | None
) -> Iterator[dict[str, Any]]:
    _, parts = met
    miner = rules_miner(recipe.seed) if recipe.miner == "rules" else mine
    for entry in finish(parts["study"], dict(parts["elected"]), recipe, out, miner):
        yield finished_to_json(entry)


def _events(prepared: Prepared, recipe: Recipe) -> Iterator[str]:
    built = [f"built {ballot.task}" for ballot in ballots_of(prepared, recipe)]
    yield from ("studies", *(built or ["silent"]))


def _counted(what: str, count: int) -> dict[str, Any]:
    return {"what": what, "count": count}


def _lines(work: Path, name: str) -> Iterator[dict[str, Any]]:
    for file in sorted(work.glob(f"{name}-*.jsonl")):
        with open(file, encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _in_order(work: Path) -> Iterator[dict[str, Any]]:
    """The finished questions in the order of the source; in memory are only their places."""
    files = sorted(work.glob("finished-*.jsonl"))
    places: list[tuple[int, int, int]] = []
    for index, file in enumerate(files):
        with open(file, "rb") as lines:
            offset = 0
            for line in lines:
                places.append((json.loads(line)["number"], index, offset))
                offset += len(line)
    places.sort()
    with ExitStack() as stack:
        opened = [stack.enter_context(open(file, "rb")) for file in files]
        for _, index, offset in places:
            opened[index].seek(offset)
            yield json.loads(opened[index].readline())
