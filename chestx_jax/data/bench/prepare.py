"""The first half of a build, study by study: is it usable, where does it belong, what does it answer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chestx_jax.data.bench.recipe import BenchError, Recipe
from chestx_jax.data.bench.splits import split_of
from chestx_jax.data.questions import Ballot, ballot_of, build_questions
from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Rejected


@dataclass(frozen=True)
class Numbered:
    """A study with its place in the stream; `repeated`: its id was used before."""

    number: int
    study: Study
    repeated: bool = False


@dataclass(frozen=True)
class Prepared:
    """A study that is in, its split settled."""

    number: int
    split: str
    study: Study


def numbered(studies: Iterable[Study]) -> Iterator[Numbered]:
    """The studies in their order; study ids are unique among those that are not repeated."""
    used: set[str] = set()
    for number, study in enumerate(studies):
        yield Numbered(number, study, study.id in used)
        used.add(study.id)


def prepare(entry: Numbered) -> Prepared | Rejected:
    """Rejected: an id used before, no image, or one that is not there or empty.

    Raises:
      BenchError: a split's name that cannot name a file.
    """
    study = entry.study
    record = f"{study.source}: study {study.id}"
    if reason := "this study id was used before" if entry.repeated else _unusable(study):
        return Rejected(record, reason)
    split = split_of(study)
    if not split.replace("_", "").replace("-", "").isalnum():
        raise BenchError(f"study {study.source}/{study.id}: field 'split': {split!r} cannot name a file")
    return Prepared(entry.number, split, study)


def ballots_of(prepared: Prepared, recipe: Recipe) -> list[Ballot]:
    """One for every question that the study answers.

    Raises:
      QuestionError: labels outside the schema.
    """
    study = prepared.study
    samples = build_questions(study, recipe.tasks, recipe.seed)
    return [ballot_of(sample, study, prepared.split) for sample in samples]


def _unusable(study: Study) -> str | None:
    everything = [*study.images, *(study.prior.images if study.prior else ())]
    if not study.images:
        return "no image"
    for image in everything:
        if not image.is_file():
            return f"no such image: {image}"
        if not image.stat().st_size:
            return f"empty image file: {image}"
    return None
