"""The second half of a build, study by study: the questions that were elected, their reasoning, its checks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chestx_jax.data.bench.image_store import store_images
from chestx_jax.data.bench.prepare import Prepared
from chestx_jax.data.bench.recipe import Recipe
from chestx_jax.data.images import ImageError
from chestx_jax.data.questions import Elected, build_questions
from chestx_jax.data.schema import Sample

if TYPE_CHECKING:
    from chestx_jax.data.mining import Mined

IMAGES = "images"
Mine = Callable[[list[Sample]], Iterable["Mined"]]
"""Samples with a report and without reasoning -> what became of them, in the same order."""


@dataclass(frozen=True)
class Finished:
    """A question with what became of it.

    Attributes:
      number: place of its study in the stream.
      mined: how its reasoning was mined (mined, repaired or quarantined); empty where it was not.
      reasons: why it is in quarantine; empty for a sample that is in.
      steps: verdicts on its steps, for a mined sample.
    """

    number: int
    split: str
    sample: Sample
    mined: str = ""
    reasons: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


def finish(
    prepared: Iterable[Prepared], elected: Elected, recipe: Recipe, out: Path, mine: Mine | None
) -> Iterator[Finished]:
    """Every elected question of these studies, its images stored where the recipe says so. With `mine`, those
    with a report and without reasoning of their own are mined and verified."""
    asked = [entry for study in prepared for entry in _asked(study, elected, recipe, out)]
    wanted = [entry.sample for entry in asked if _is_wanted(entry)] if mine else []
    mined = iter(mine(wanted)) if mine else iter(())
    for entry in asked:
        if mine and _is_wanted(entry):
            yield _verified(entry, next(mined))
        else:
            yield entry


def _asked(prepared: Prepared, elected: Elected, recipe: Recipe, out: Path) -> Iterator[Finished]:
    study = prepared.study
    reasons: tuple[str, ...] = ()
    samples = build_questions(study, recipe.tasks, recipe.seed, elected)
    if samples and recipe.longest_side is not None:
        try:
            study = store_images(study, out / IMAGES, recipe.longest_side)
            samples = build_questions(study, recipe.tasks, recipe.seed, elected)
        except ImageError as error:
            reasons = (f"image: {error}",)
    for sample in samples:
        yield Finished(prepared.number, prepared.split, sample, reasons=reasons)


def is_mined(sample: Sample) -> bool:
    """Whether a miner gets to see the sample: it has a report and brings no reasoning."""
    return bool(sample.report) and not sample.reason_steps


def _is_wanted(entry: Finished) -> bool:
    return is_mined(entry.sample) and not entry.reasons


def _verified(entry: Finished, mined: "Mined") -> Finished:
    from chestx_jax.data.mining import verify  # on use: builds without mining need no rules

    verification = verify(mined.sample)
    return Finished(
        entry.number,
        entry.split,
        mined.sample,
        mined=mined.status,
        reasons=mined.reasons or verification.reasons,
        steps=verification.verdicts,
    )


def rules_miner(seed: int) -> Mine:
    """The offline miner."""
    from chestx_jax.data.mining import Mined, mine_rules

    return lambda samples: [Mined(mine_rules(sample, seed), "mined") for sample in samples]
