"""Which things are measured: a plan of jobs. Needs the standard library alone."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

MEASURES = ("train", "generate", "grpo", "start", "memory", "growth")
OURS, TRANSFORMERS, TRL, TUNIX = "chestx_jax", "transformers", "trl", "tunix"
MODEL, SAMPLES = (
    "model",
    "samples.jsonl",
)  # what a size has: weights with their processor, questions with pictures


class PlanError(ValueError):
    """A size or a measure that there is not."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One measured thing.

    Attributes:
      measure: train, generate, grpo, start or peak.
      who: whose program.
      size: a name of `sizes.SIZES`.
      batch: rows; prompts of a GRPO step.
      tokens: of a training row, or of a prompt (of which a GRPO step's may have fewer, padded to it).
      images: of each row.
      new_tokens: drawn for each row.
      group: completions of each prompt.
      repeats: timed calls after those that warm up.
    """

    measure: str
    who: str
    size: str
    batch: int = 0
    tokens: int = 0
    images: int = 0
    new_tokens: int = 0
    group: int = 0
    repeats: int = 5

    @property
    def name(self) -> str:
        """Of its file."""
        shape = f"b{self.batch}-t{self.tokens}-i{self.images}-n{self.new_tokens}-g{self.group}"
        return f"{self.measure}-{self.who}-{self.size}-{shape}-r{self.repeats}"


@dataclasses.dataclass(frozen=True)
class Load:
    """How much of everything: the batches, lengths and groups that are measured for one size."""

    train_batch: int = 8
    train_tokens: int = 256
    prompt_tokens: int = 64
    new_tokens: int = 128
    generate_batches: tuple[int, ...] = (8, 32)
    prompts: int = 4
    group: int = 8
    images: tuple[int, ...] = (1, 2, 4)  # that a row grows to


LOADS = {
    "S": Load(),
    "M": Load(prompt_tokens=128, images=(1, 2, 3)),  # an image alone is 66 tokens
    "toy": Load(2, 32, 48, 4, (2,), 2, 2),
}


def train_job(size: str, who: str, repeats: int) -> Job:
    """A training step of the usual load."""
    load = LOADS[size]
    return Job("train", who, size, load.train_batch, load.train_tokens, 1, repeats=repeats)


def grpo_job(size: str, who: str, repeats: int) -> Job:
    """A GRPO step of the usual load."""
    load = LOADS[size]
    return Job(
        "grpo", who, size, load.prompts, load.prompt_tokens, 1, load.new_tokens, load.group, repeats=repeats
    )


def plan(sizes: Sequence[str], only: Sequence[str], repeats: int, others: Sequence[str]) -> list[Job]:
    """All jobs, ours and the others' of the same thing side by side.

    Args:
      others: of TRANSFORMERS, TRL and TUNIX, those that are installed.

    Raises:
      PlanError: an unknown size or measure.
    """
    for name, known in [*((size, LOADS) for size in sizes), *((measure, MEASURES) for measure in only)]:
        if name not in known:
            raise PlanError(f"{name!r} is none of {', '.join(known)}")
    jobs = [Job("peak", OURS, sizes[0], repeats=repeats)]
    for size in sizes:
        if {"train", "memory"} & set(only):
            jobs += [train_job(size, who, repeats) for who in (OURS, *_who((TRANSFORMERS,), others))]
        if "generate" in only:
            jobs += _generate_jobs(size, repeats, others)
        if "grpo" in only:
            jobs += [grpo_job(size, who, repeats) for who in (OURS, *_who((TRL, TUNIX), others))]
    if "start" in only:
        jobs.append(dataclasses.replace(train_job(sizes[0], OURS, repeats), measure="start"))
    if "growth" in only:
        jobs += [job for axis in growth(sizes[0], repeats).values() for _, job in axis]
    return list(dict.fromkeys(jobs))


def _who(can: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    return (who for who in can if who in others)


def _generate_jobs(size: str, repeats: int, others: Sequence[str]) -> list[Job]:
    load = LOADS[size]
    return [
        Job("generate", who, size, batch, load.prompt_tokens, 1, load.new_tokens, 1, repeats)
        for batch in load.generate_batches
        for who in (OURS, *_who((TRANSFORMERS, TUNIX), others))
    ]


def growth(size: str, repeats: int) -> dict[str, list[tuple[int, Job]]]:
    """axis -> (value, job): one thing grows, all else as usual. Width takes heads and MLP along."""
    train, grpo = train_job(size, OURS, repeats), grpo_job(size, OURS, repeats)

    def grown(job: Job, field: str, values: Sequence[int]) -> list[tuple[int, Job]]:
        return [(value, dataclasses.replace(job, **dict[str, Any]({field: value}))) for value in values]

    tokens, batch = train.tokens, train.batch
    found = {
        "batch": grown(train, "batch", [batch // 2, batch, 2 * batch, 4 * batch]),
        "tokens": grown(train, "tokens", [tokens, 2 * tokens, 4 * tokens]),
        "images": grown(train, "images", LOADS[size].images),
        "group": grown(grpo, "group", [grpo.group // 2, grpo.group, 2 * grpo.group, 4 * grpo.group]),
    }
    if size == "S":
        widths = ((128, "S128"), (256, "S"), (512, "S512"))
        found["width"] = [(width, dataclasses.replace(train, size=name)) for width, name in widths]
    return {
        axis: [(v, job) for v, job in points if v > 1 or axis == "images"] for axis, points in found.items()
    }
