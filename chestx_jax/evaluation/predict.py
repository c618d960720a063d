"""Completions for samples: prompts in batches of fixed shapes, longest first, through one generation program."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from chestx_jax.data.pipeline import Source, ordered_batches
from chestx_jax.data.processor import Processor
from chestx_jax.data.schema import Sample
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import batch_share
from chestx_jax.rewards import RewardFunction, columns_of
from chestx_jax.rollout import Completion, Engine, Sampling, prompt_buckets


@dataclass(frozen=True)
class Decoding:
    """How to decode.

    Attributes:
      mode: "reason" asks for reasoning (the suffix of the paper), "answer" for the answer alone.
      temperature: 0 is greedy.
      max_new_tokens: a completion is cut there.
      batch_size: prompts at a time.
      seed: of sampling; sample i of the file draws from key (seed, i), whatever the batches.
      best_of: completions of each prompt, of which the one with the highest reward is kept.
      blank_images: replace every image by an even grey one of the same size; what is still right then was
        never read off the image.
    """

    mode: str = "reason"
    temperature: float = 0.0
    max_new_tokens: int = 512
    batch_size: int = 16
    seed: int = 0
    best_of: int = 1
    blank_images: bool = False


def predict(
    model: Qwen2VL,
    processor: Processor,
    samples: Sequence[Sample],
    decoding: Decoding,
    mesh: Mesh,
    reward: RewardFunction | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Predictions of this process in groups as they are made: {"id", "prediction", "tokens", "log_probability",
    "finished", "seconds"}, and with a reward {"reward"}.

    `tokens` counts them, `log_probability` is their sum under the sampling distribution, `finished` is false
    where `max_new_tokens` cut the text, `seconds` is the batch's share.

    Args:
      reward: picks the best of `decoding.best_of` completions; a completion that it does not apply to comes last.

    Raises:
      PipelineError: a sample that cannot be read; names file, sample and field.
    """
    if not samples:
        return
    source = Source(name="samples", samples=samples, mode=decoding.mode)
    engine = Engine(
        processor, mesh, decoding.max_new_tokens, Sampling(decoding.temperature), decoding.best_of
    )
    share, shares = batch_share(mesh)
    number = {sample.id: i for i, sample in enumerate(samples)}
    prompts = ordered_batches(
        source,
        processor,
        buckets=prompt_buckets(processor, samples, decoding.mode, model.attention),
        batch_size=decoding.batch_size,
        target=False,
        process_index=share,
        process_count=shares,
        blank_images=decoding.blank_images,
    )
    for batch in prompts:
        began = time.monotonic()
        numbers = np.array([number[id] for id in batch.ids])
        completions = engine.complete(model, batch, jax.random.key(decoding.seed), numbers)
        rewards = None if reward is None else _rewards(reward, completions)
        yield _rows(completions, rewards, decoding.best_of, time.monotonic() - began)


def _rewards(reward: RewardFunction, completions: Completion) -> list[float]:
    given = reward(
        prompts=[sample.question for sample in completions.samples],
        completions=completions.texts,
        **columns_of(completions.samples),
    )
    return [-math.inf if value is None else float(value) for value in given]


def _rows(
    completions: Completion, rewards: list[float] | None, group: int, seconds: float
) -> list[dict[str, Any]]:
    """A row a prompt: its only completion, or the first of those with the highest reward."""
    rows = [
        {
            "id": sample.id,
            "prediction": text,
            "tokens": int(length),
            "log_probability": float(total),
            "finished": bool(ended),
            "seconds": round(seconds * group / len(completions), 4),
        }
        for sample, text, length, total, ended in zip(
            completions.samples,
            completions.texts,
            completions.lengths,
            completions.logprobs.sum(axis=1),
            completions.ended,
            strict=True,
        )
    ]
    if rewards is None:
        return rows
    best = [max(range(i, i + group), key=rewards.__getitem__) for i in range(0, len(rows), group)]
    return [{**rows[i], "reward": rewards[i]} for i in best]
