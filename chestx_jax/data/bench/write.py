"""The files of a benchmark: samples by task and split, what was left out, statistics, the data card."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from chestx_jax.data.bench.card import card
from chestx_jax.data.bench.finish import Finished
from chestx_jax.data.bench.recipe import Recipe
from chestx_jax.data.bench.stats import Tally
from chestx_jax.data.jsonl import atomic_text, sample_from_json, sample_to_json
from chestx_jax.data.schema import Sample, SampleError, check_sample
from chestx_jax.data.sources import Rejected

STATS = "stats.json"


@dataclass(frozen=True)
class Totals:
    """What happened before the questions.

    Attributes:
      studies, silent: studies that are in, and those of them that answer no question.
      rejected: records that are out.
      built: task -> questions that stood for election.
    """

    studies: int
    silent: int
    rejected: tuple[Rejected, ...]
    built: Mapping[str, int]


def finished_to_json(entry: Finished) -> dict[str, Any]:
    """What `write_bench` reads."""
    return vars(entry) | {"sample": sample_to_json(entry.sample)}


def write_bench(
    out: Path, finished: Iterable[Mapping[str, Any]], recipe: Recipe, totals: Totals
) -> dict[str, Any]:
    """Writes the benchmark from finished questions (`finished_to_json`); returns its statistics.

    Every file appears whole or not at all. `stats.json` is the last: without it a bench is not complete.

    Raises:
      SampleError: a sample breaks the schema's rules, or an id repeats.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / STATS).unlink(missing_ok=True)
    tally = Tally()
    written: dict[tuple[str, str], TextIO] = {}
    with ExitStack() as stack:
        quarantine = stack.enter_context(atomic_text(out / "quarantine.jsonl"))
        for entry in _checked(finished):
            located = _located(entry.sample, (out / entry.sample.task).absolute())
            tally.add(replace(entry, sample=located))
            if entry.reasons:
                record = {"reasons": entry.reasons, "split": entry.split, **sample_to_json(located)}
                quarantine.write(_line(record))
                continue
            key = located.task, entry.split
            if key not in written:
                path = out / located.task / f"{entry.split}.jsonl"
                written[key] = stack.enter_context(atomic_text(path))
            line = _line(sample_to_json(located))
            tally.digest(key, line)
            written[key].write(line)
    for task in recipe.tasks:
        for old in sorted((out / task).glob("*.jsonl")):
            if (task, old.stem) not in written:
                old.unlink()
    with atomic_text(out / "rejected.jsonl") as lines:
        lines.writelines(_line(asdict(record)) for record in totals.rejected)
    stats = tally.stats(recipe, totals.studies, totals.silent, len(totals.rejected), totals.built)
    with atomic_text(out / "README.md") as text:
        text.write(card(stats))
    with atomic_text(out / STATS) as text:
        json.dump(stats, text, indent=1, ensure_ascii=False)
        text.write("\n")
    return stats


def _checked(finished: Iterable[Mapping[str, Any]]) -> Iterator[Finished]:
    seen: set[str] = set()
    for record in finished:
        entry = finished_from_json(record)
        problems = [f"field '{name}': {what}" for name, what in check_sample(entry.sample)]
        if entry.sample.id in seen:
            problems.append("field 'id': used twice")
        if problems:
            raise SampleError([f"sample {entry.sample.id!r}: {problem}" for problem in problems])
        seen.add(entry.sample.id)
        yield entry


def finished_from_json(record: Mapping[str, Any]) -> Finished:
    """The entry of a record of `finished_to_json`."""
    sample = sample_from_json(record["sample"], Path(), record["sample"]["id"])
    lists = {name: tuple(record[name]) for name in ("reasons", "steps")}
    return Finished(record["number"], record["split"], sample, record["mined"], **lists)


def _located(sample: Sample, folder: Path) -> Sample:
    images = tuple(os.path.relpath(os.path.abspath(image), folder) for image in sample.images)
    return replace(sample, images=images, root=folder)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
