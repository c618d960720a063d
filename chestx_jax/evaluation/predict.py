"""Completions for samples: prompts in batches of fixed shapes, longest first, through one generation program."""

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
      blank_images: replace every image by an even grey one of the same size; what is still right then was
        never read off the image.
    """

    mode: str = "reason"
    temperature: float = 0.0
    max_new_tokens: int = 512
    batch_size: int = 16
    seed: int = 0
    blank_images: bool = False


def predict(
    model: Qwen2VL, processor: Processor, samples: Sequence[Sample], decoding: Decoding, mesh: Mesh
) -> Iterator[list[dict[str, Any]]]:
    """Predictions in groups as they are made: {"id", "prediction", "tokens", "log_probability", "finished",
    "seconds"}.

    `tokens` counts them, `log_probability` is their sum under the sampling distribution, `finished` is false
    where `max_new_tokens` cut the text, `seconds` is the batch's share.

    Raises:
      PipelineError: a sample that cannot be read; names file, sample and field.
    """
    source = Source(name="samples", samples=samples, mode=decoding.mode)
    engine = Engine(processor, mesh, decoding.max_new_tokens, Sampling(decoding.temperature))
    number = {sample.id: i for i, sample in enumerate(samples)}
    prompts = ordered_batches(
        source,
        processor,
        buckets=prompt_buckets(processor, samples, decoding.mode),
        batch_size=decoding.batch_size,
        target=False,
        blank_images=decoding.blank_images,
    )
    for batch in prompts:
        began = time.monotonic()
        numbers = np.array([number[id] for id in batch.ids])
        completions = engine.complete(model, batch, jax.random.key(decoding.seed), numbers)
        yield _rows(completions, time.monotonic() - began)


def _rows(completions: Completion, seconds: float) -> list[dict[str, Any]]:
    return [
        {
            "id": sample.id,
            "prediction": text,
            "tokens": int(length),
            "log_probability": float(total),
            "finished": bool(ended),
            "seconds": round(seconds / len(completions), 4),
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
