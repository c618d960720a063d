"""What a benchmark holds, counted while it is written."""

import hashlib
import os
import platform
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chestx_jax.data.bench.collections import COLLECTIONS, UNKNOWN
from chestx_jax.data.bench.finish import Finished
from chestx_jax.data.bench.near_duplicates import Crossings
from chestx_jax.data.bench.recipe import Recipe
from chestx_jax.data.schema import Sample
from chestx_jax.data.shortcuts import (
    Shortcut,
    accuracy,
    chance,
    learned_accuracies,
    majority,
    shortcut_accuracies,
)

MARGIN = 0.1
"""A text-only reader who is further above chance than this is worth a warning."""
_STEP = re.compile(r"^step \d+: ")  # a reason is counted by its kind: without the step and the words quoted
_VERSIONED = ("chestx_jax", "numpy", "pillow")


class Tally:
    """Counts as questions pass by; keeps of a sample only what the shortcuts look at."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
        self._steps: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        self._labels: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(
            lambda: defaultdict(Counter)
        )
        self._mined: dict[str, Counter[str]] = defaultdict(Counter)
        self._repaired: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self._verdicts: dict[str, Counter[str]] = defaultdict(Counter)
        self._images: dict[Path, bytes] = {}
        self._lines: dict[tuple[str, str], Any] = defaultdict(hashlib.sha256)
        self._crossings = Crossings()
        self._quarantined = 0
        self._sources: Counter[str] = Counter()

    def add(self, entry: Finished) -> None:
        """One question with what became of it; its images must be there."""
        sample, key = entry.sample, (entry.sample.task, entry.split)
        if entry.mined:
            self._mined[sample.task]["quarantined" if entry.reasons else "passed"] += 1
            self._repaired[sample.task] += entry.mined == "repaired" and not entry.reasons
            self._reasons[sample.task].update({_STEP.sub("", r).partition(":")[0] for r in entry.reasons})
            self._verdicts[sample.task].update(entry.steps)
        if entry.reasons:
            self._quarantined += 1
            return
        self._samples[key].append(replace(sample, report="", reason_steps=(), extra={}))
        self._steps[key][len(sample.reason_steps)] += 1
        if "label" in sample.extra:
            self._labels[key][sample.extra["label"]][sample.answer_text.lower()] += 1
        else:
            for label in sample.answer_text.split(", "):
                self._labels[key][label]["present"] += 1
        self._crossings.add(entry.split, sample.study, sample.report)
        self._sources[sample.source] += 1
        for image in sample.image_paths:
            path = Path(os.path.normpath(image))
            if path not in self._images:
                self._images[path] = hashlib.sha256(path.read_bytes()).digest()

    def digest(self, key: tuple[str, str], line: str) -> None:
        """Takes a line that was written into the content hash."""
        self._lines[key].update(line.encode())

    def stats(
        self, recipe: Recipe, studies: int, silent: int, rejected: int, built: Mapping[str, int]
    ) -> dict[str, Any]:
        """The content of `stats.json`."""
        return {
            "content_sha256": self._content(),
            "recipe": asdict(recipe) | {"tasks": list(recipe.tasks)},
            "sources": {name: asdict(COLLECTIONS.get(name, UNKNOWN)) for name in sorted(self._sources)},
            "versions": {name: version(name) for name in _VERSIONED} | {"python": platform.python_version()},
            "studies": studies,
            "studies_without_question": silent,
            "rejected": rejected,
            "quarantined": self._quarantined,
            "images": len(self._images),
            "samples": sum(len(group) for group in self._samples.values()),
            "questions_built": {task: built.get(task, 0) for task in recipe.tasks},
            "tasks": {task: self._splits(task) for task in recipe.tasks},
            "verification": {task: self._verification(task) for task in recipe.tasks if task in self._mined},
            "shortcuts": {task: row for task in recipe.tasks if (row := self._shortcuts(task))},
            "near_duplicate_reports": self._crossings.counts(),
        }

    def _content(self) -> str:
        """Hash of every samples file and every image, wherever they lie."""
        digest = hashlib.sha256()
        for key in sorted(self._lines):
            digest.update(repr(key).encode() + self._lines[key].digest())
        for content in sorted(self._images.values()):
            digest.update(content)
        return digest.hexdigest()

    def _splits(self, task: str) -> dict[str, Any]:
        return {key[1]: self._split(key) for key in sorted(self._samples) if key[0] == task}

    def _split(self, key: tuple[str, str]) -> dict[str, Any]:
        group, steps = self._samples[key], self._steps[key]
        patients = {sample.patient for sample in group}
        return {
            "samples": len(group),
            "with_reasoning": len(group) - steps[0],
            "studies": len({sample.study for sample in group}),
            "patients": None if None in patients else len(patients),  # null: not known
            "answers": dict(sorted(Counter(s.answer for s in group if s.options is not None).items())),
            "labels": {
                label: dict(sorted(counts.items())) for label, counts in sorted(self._labels[key].items())
            },
            "steps": {str(count): number for count, number in sorted(steps.items()) if count},
        }

    def _verification(self, task: str) -> dict[str, Any]:
        counts = self._mined[task]
        return {
            "mined": counts.total(),
            "passed": counts["passed"],
            "repaired": self._repaired[task],  # among those that passed
            "quarantined": counts["quarantined"],
            "pass_rate": round(counts["passed"] / counts.total(), 4),
            "reasons": dict(self._reasons[task].most_common()),
            "steps": dict(self._verdicts[task].most_common()),
        }

    def _shortcuts(self, task: str) -> dict[str, Any] | None:
        """Every baseline on all splits together, and learned on "train" for the others."""
        own = {split: group for (named, split), group in self._samples.items() if named == task}
        together = [sample for split in sorted(own) for sample in own[split]]
        if not together:
            return None
        found = [Shortcut("majority", accuracy(together, majority(together))), *shortcut_accuracies(together)]
        held_out = [sample for split in sorted(own) if split != "train" for sample in own[split]]
        if held_out and own.get("train"):
            found += learned_accuracies(own["train"], held_out)
        return _row(together, found)


def _row(samples: Sequence[Sample], found: Sequence[Shortcut]) -> dict[str, Any]:
    guessing = chance(samples)
    best = max(found, key=lambda shortcut: shortcut.accuracy)
    return {
        "samples": len(samples),
        "chance": round(guessing, 4),
        **{shortcut.name: round(shortcut.accuracy, 4) for shortcut in found},
        "best": best.name,
        "warning": best.accuracy > guessing + MARGIN,
    }
