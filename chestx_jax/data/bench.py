"""Studies -> questions -> files: `out/<task>/<split>.jsonl`, with `rejected.jsonl` and `stats.json`."""

import hashlib
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from chestx_jax.data.jsonl import atomic_text, write_samples
from chestx_jax.data.questions import balance_binary, build_questions
from chestx_jax.data.schema import TASKS, Sample, Study
from chestx_jax.data.sources import Rejected

SPLITS: Mapping[str, int] = {"train": 80, "validation": 10, "test": 10}
"""Split -> share of the patients in percent, where the collection has no official one."""
_REPORT_EVERY = 500


class BenchError(ValueError):
    """Studies that cannot become a benchmark; the message names study and field."""


def split_of(study: Study) -> str:
    """The official split, else one drawn by a hash of the patient (of the study where patients are unknown).

    The hash takes neither the seed nor the other studies in, so a patient stays in the same split for good.
    """
    if study.split is not None:
        return study.split
    who = study.patient if study.patient is not None else f"study {study.id}"
    place = int.from_bytes(hashlib.sha256(f"{study.source}|{who}".encode()).digest()[:8], "big") % 100
    for split, share in SPLITS.items():
        place -= share
        if place < 0:
            return split
    raise AssertionError("the shares add up to 100")


def build_bench(
    studies: Iterable[Study],
    out: str | os.PathLike[str],
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    *,
    rejected: Iterable[Rejected] = (),
    progress: TextIO | None = sys.stderr,
) -> dict[str, Any]:
    """Builds every question, balances the binary ones in each split and writes the files. Returns the
    statistics.

    A study without images, with one that is not there or empty, or with an id used before is rejected.
    Images stay where they are and are named by their path relative to the samples file. Files of an earlier
    build of these tasks are replaced, and removed where nothing is left to write.

    Args:
      rejected: records that the reader left out; read once the studies are used up, so a list it appends to
        will do.
      progress: where the line of progress goes, None for nowhere.

    Raises:
      BenchError: a split's name that cannot name a file. QuestionError: labels outside the schema.
    """
    out = Path(out)
    refused: list[Rejected] = []
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    used: set[str] = set()
    silent = 0
    started = time.monotonic()
    for number, study in enumerate(studies, start=1):
        if reason := _unusable(study, used):
            refused.append(Rejected(f"{study.source}: study {study.id}", reason))
            continue
        used.add(study.id)
        split = split_of(study)
        if not split.replace("_", "").replace("-", "").isalnum():
            raise BenchError(f"study {study.source}/{study.id}: field 'split': {split!r} cannot name a file")
        built = build_questions(study, tasks, seed)
        silent += not built
        for sample in built:
            samples[sample.task, split].append(sample)
        if progress and number % _REPORT_EVERY == 0:
            _report(progress, number, samples, started, "\r")
    if progress:
        _report(progress, len(used) + len(refused), samples, started, "\n")
    refused = [*rejected, *refused]
    balanced = {key: balance_binary(samples[key], seed) for key in sorted(samples)}
    stats = _stats(balanced, used, silent, refused, tasks, seed)
    _write(out, tasks, balanced, refused, stats)
    return stats


def _unusable(study: Study, used: set[str]) -> str | None:
    if study.id in used:
        return "this study id was used before"
    everything = [*study.images, *(study.prior.images if study.prior else ())]
    if not study.images:
        return "no image"
    for image in everything:
        if not image.is_file():
            return f"no such image: {image}"
        if not image.stat().st_size:
            return f"empty image file: {image}"
    return None


def _report(
    progress: TextIO, number: int, samples: Mapping[Any, Sequence[Sample]], started: float, end: str
) -> None:
    count = sum(len(group) for group in samples.values())
    rate = number / max(time.monotonic() - started, 1e-9)
    progress.write(f"{number} studies, {count} questions, {rate:.0f} studies/s{end}")
    progress.flush()


def _write(
    out: Path,
    tasks: Sequence[str],
    samples: Mapping[tuple[str, str], Sequence[Sample]],
    rejected: Sequence[Rejected],
    stats: Mapping[str, Any],
) -> None:
    for task in tasks:
        for old in sorted((out / task).glob("*.jsonl")):
            if not samples.get((task, old.stem)):
                old.unlink()
    for (task, split), group in samples.items():
        if group:
            folder = (out / task).absolute()
            write_samples(out / task / f"{split}.jsonl", [_located(sample, folder) for sample in group])
    with atomic_text(out / "rejected.jsonl") as file:
        file.writelines(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in rejected)
    with atomic_text(out / "stats.json") as file:
        json.dump(stats, file, indent=1, ensure_ascii=False)
        file.write("\n")


def _located(sample: Sample, folder: Path) -> Sample:
    images = tuple(os.path.relpath(os.path.abspath(image), folder) for image in sample.images)
    return replace(sample, images=images, root=folder)


def _stats(
    samples: Mapping[tuple[str, str], Sequence[Sample]],
    used: set[str],
    silent: int,
    rejected: Sequence[Rejected],
    tasks: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Counts by task and split: samples, reasoning samples, studies, answers, answers by label."""
    table: dict[str, dict[str, Any]] = {task: {} for task in tasks}
    for (task, split), group in samples.items():
        labels: dict[str, Counter[str]] = defaultdict(Counter)
        for sample in group:
            if sample.options is None or "label" not in sample.extra:
                for label in sample.answer_text.split(", "):
                    labels[label]["present"] += 1
            else:
                labels[sample.extra["label"]][sample.answer_text.lower()] += 1
        table[task][split] = {
            "samples": len(group),
            "with_reasoning": sum(bool(sample.reason_steps) for sample in group),
            "studies": len({sample.study for sample in group}),
            "answers": dict(sorted(Counter(s.answer for s in group if s.options is not None).items())),
            "labels": {label: dict(sorted(counts.items())) for label, counts in sorted(labels.items())},
        }
    return {
        "seed": seed,
        "studies": len(used),
        "studies_without_question": silent,
        "rejected": len(rejected),
        "samples": sum(len(group) for group in samples.values()),
        "tasks": table,
    }
