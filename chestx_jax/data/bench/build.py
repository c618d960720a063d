"""The build on a single machine: a process pool, working files in out/.build, nothing half-written.

Studies go through in chunks. A chunk leaves one working file when it is prepared and one when its questions
are finished; a build that was interrupted finds them and goes on, as long as studies and recipe are the same.
In between, sampling looks at the ballots of all chunks. The benchmark's own files appear at the end, each
whole, `stats.json` last; the working files are removed then.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from chestx_jax.data.bench.finish import Mine, finish, is_mined, rules_miner
from chestx_jax.data.bench.prepare import Numbered, Prepared, ballots_of, numbered, prepare
from chestx_jax.data.bench.recipe import BenchError, Recipe
from chestx_jax.data.bench.study_json import study_from_json, study_to_json
from chestx_jax.data.bench.write import Totals, finished_to_json, write_bench
from chestx_jax.data.jsonl import atomic_text
from chestx_jax.data.pool import ordered_map
from chestx_jax.data.questions import SAMPLINGS, Ballot, Elected
from chestx_jax.data.schema import Sample, Study
from chestx_jax.data.sources import Rejected

WORK = ".build"
_CHUNK = 64  # studies


@dataclass(frozen=True)
class _Chunk:
    """What of a prepared chunk stays in memory."""

    file: Path
    rejected: tuple[Rejected, ...]
    ballots: tuple[Ballot, ...]
    studies: int
    silent: int


def build_bench(
    studies: Iterable[Study],
    out: str | os.PathLike[str],
    recipe: Recipe,
    *,
    rejected: Iterable[Rejected] = (),
    processes: int = 1,
    mine: Mine | None = None,
    progress: TextIO | None = sys.stderr,
) -> dict[str, Any]:
    """Builds the benchmark in `out` and returns its statistics (`stats.json`).

    Files of an earlier build are replaced, and removed where nothing is left to write.

    Args:
      rejected: records that the reader left out; read once the studies are used up, so a list it appends to
        will do.
      processes: for everything but `mine`; they change nothing in the result.
      mine: mines the reasoning where `recipe.miner` is "llm"; it is called in this process.
      progress: where the line of progress goes, None for nowhere.

    Raises:
      BenchError: a split's name that cannot name a file; a miner that is missing. QuestionError: labels
        outside the schema.
    """
    if (recipe.miner == "llm") != (mine is not None):
        raise BenchError(f"miner {recipe.miner!r}, but {'no' if mine is None else 'a'} function that mines")
    out = Path(out)
    work = _work_folder(out, recipe)
    started = time.monotonic()
    chunks: list[_Chunk] = []
    prepare_one = partial(_prepare_chunk, recipe=recipe, work=work)
    for chunk in ordered_map(prepare_one, enumerate(_chunked(studies)), processes):
        chunks.append(chunk)
        _tell(progress, chunks, sum(len(c.ballots) for c in chunks), "questions", started, "\r")
    ballots = [ballot for chunk in chunks for ballot in chunk.ballots]
    _tell(progress, chunks, len(ballots), "questions", started, "\n")
    elected = SAMPLINGS[recipe.sampling](ballots, recipe.seed)
    finish_one = partial(_finish_chunk, recipe=recipe, out=out, work=work, mine=mine)
    finished: list[Path] = []
    started = time.monotonic()
    for file in ordered_map(finish_one, _shares(chunks, elected), 1 if mine else processes):
        finished.append(file)
        _tell(progress, chunks[: len(finished)], len(elected), "questions elected", started, "\r")
    _tell(progress, chunks, len(elected), "questions elected", started, "\n")
    totals = Totals(
        studies=sum(chunk.studies for chunk in chunks),
        silent=sum(chunk.silent for chunk in chunks),
        rejected=(*rejected, *(record for chunk in chunks for record in chunk.rejected)),
        built=dict(_counts(ballots)),
    )
    stats = write_bench(out, _records(finished), recipe, totals)
    shutil.rmtree(work)
    return stats


def preview(studies: Iterable[Study], recipe: Recipe) -> list[Sample]:
    """The questions that a build would mine, in memory; nothing is written."""
    entries = [prepare(entry) for entry in numbered(studies)]
    prepared = [entry for entry in entries if isinstance(entry, Prepared)]
    ballots = [ballot for entry in prepared for ballot in ballots_of(entry, recipe)]
    elected = SAMPLINGS[recipe.sampling](ballots, recipe.seed)
    unstored = replace(recipe, longest_side=None)
    samples = (entry.sample for entry in finish(prepared, elected, unstored, Path(), None))
    return [sample for sample in samples if is_mined(sample)]


def _counts(ballots: Iterable[Ballot]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for ballot in ballots:
        counts[ballot.task] = counts.get(ballot.task, 0) + 1
    return counts


def _work_folder(out: Path, recipe: Recipe) -> Path:
    """out/.build, emptied when it belongs to another recipe."""
    work = out / WORK
    plan = json.dumps(asdict(recipe) | {"out": str(out.absolute())})
    if not (work / "recipe.json").is_file() or (work / "recipe.json").read_text() != plan:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        with atomic_text(work / "recipe.json") as file:
            file.write(plan)
    return work


def _chunked(studies: Iterable[Study]) -> Iterator[list[Numbered]]:
    stream = numbered(studies)
    while chunk := list(islice(stream, _CHUNK)):
        yield chunk


def _prepare_chunk(item: tuple[int, list[Numbered]], recipe: Recipe, work: Path) -> _Chunk:
    place, chunk = item
    file = work / "studies" / f"{place:06d}.jsonl"
    key = hashlib.sha256(repr(chunk).encode()).hexdigest()
    if (lines := _working_file(file, key)) is None:
        lines = [_to_json(prepare(entry)) for entry in chunk]
        _save(file, lines, key)
    made = [_from_json(line) for line in lines]
    prepared = [entry for entry in made if isinstance(entry, Prepared)]
    ballots = [ballots_of(entry, recipe) for entry in prepared]
    return _Chunk(
        file,
        tuple(entry for entry in made if isinstance(entry, Rejected)),
        tuple(ballot for group in ballots for ballot in group),
        len(prepared),
        sum(not group for group in ballots),
    )


def _to_json(entry: Prepared | Rejected) -> dict[str, Any]:
    if isinstance(entry, Rejected):
        return asdict(entry)
    return {"number": entry.number, "split": entry.split, "study": study_to_json(entry.study)}


def _from_json(line: dict[str, Any]) -> Prepared | Rejected:
    if "study" not in line:
        return Rejected(**line)
    return Prepared(line["number"], line["split"], study_from_json(line["study"]))


def _shares(chunks: Iterable[_Chunk], elected: Elected) -> Iterator[tuple[Path, dict[str, Any]]]:
    for chunk in chunks:
        yield chunk.file, {b.id: elected[b.id] for b in chunk.ballots if b.id in elected}


def _finish_chunk(
    item: tuple[Path, dict[str, Any]], recipe: Recipe, out: Path, work: Path, mine: Mine | None
) -> Path:
    source, elected = item
    file = work / "samples" / source.name
    with open(source, encoding="utf-8") as studies:
        key = hashlib.sha256((next(studies) + repr(elected)).encode()).hexdigest()
        if _working_file(file, key) is None:
            made = [_from_json(json.loads(line)) for line in studies]
            prepared = [entry for entry in made if isinstance(entry, Prepared)]
            miner = rules_miner(recipe.seed) if recipe.miner == "rules" else mine
            done = finish(prepared, elected, recipe, out, miner)
            _save(file, [finished_to_json(entry) for entry in done], key)
    return file


def _records(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        with open(file, encoding="utf-8") as lines:
            next(lines)  # the key
            yield from map(json.loads, lines)


def _working_file(file: Path, key: str) -> list[dict[str, Any]] | None:
    """The records of a working file that was made of the same input, else None."""
    if not file.is_file():
        return None
    with open(file, encoding="utf-8") as lines:
        if json.loads(next(lines)) != {"key": key}:
            return None
        return [json.loads(line) for line in lines]


def _save(file: Path, records: Iterable[dict[str, Any]], key: str) -> None:
    with atomic_text(file) as lines:
        for record in ({"key": key}, *records):
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")


def _tell(
    progress: TextIO | None, chunks: list[_Chunk], count: int, what: str, started: float, end: str
) -> None:
    if progress:
        number = sum(chunk.studies + len(chunk.rejected) for chunk in chunks)
        rate = number / max(time.monotonic() - started, 1e-9)
        progress.write(f"{number} studies, {count} {what}, {rate:.0f} studies/s{end}")
        progress.flush()
