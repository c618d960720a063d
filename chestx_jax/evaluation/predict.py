"""Completions for samples: prompts in batches of fixed shapes, longest first, through one generation program."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from chestx_jax.data.example import Bucket
from chestx_jax.data.pipeline import Batch, Source, ordered_batches
from chestx_jax.data.processor import Processor
from chestx_jax.data.schema import Sample
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import batch_sharding
from chestx_jax.rollout import generate

BUCKET_STEP = 64  # prompts are padded to a multiple of this many tokens: few programs, little padding


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
        rows = np.array([number[id] for id in batch.ids], np.int32)
        generated = _generate(model, processor, batch, rows, decoding, mesh)
        yield _rows(generated, batch, processor, time.monotonic() - began)


def prompt_buckets(processor: Processor, samples: Sequence[Sample], mode: str) -> tuple[Bucket, ...]:
    """The few static shapes that these prompts need."""
    lengths = processor.lengths(samples, mode=mode, target=False)
    rounded = -(-lengths[:, 0] // BUCKET_STEP) * BUCKET_STEP
    return tuple(
        Bucket(int(tokens), int(patches)) for tokens, patches in set(zip(rounded, lengths[:, 1], strict=True))
    )


def _generate(
    model: Qwen2VL, processor: Processor, batch: Batch, rows: np.ndarray, decoding: Decoding, mesh: Mesh
) -> Any:
    filling = len(batch.row_mask) - len(rows)
    arrays = jax.device_put(batch.arrays, batch_sharding(mesh))
    return generate(
        model,
        arrays,
        max_new_tokens=decoding.max_new_tokens,
        eos_ids=processor.eos_ids,
        forbidden_ids=processor.forbidden_ids(model.config.vocab_size),
        temperature=decoding.temperature,
        key=jax.random.key(decoding.seed),
        row_ids=jnp.asarray(np.pad(rows, (0, filling), mode="edge")),
    )


def _rows(generated: Any, batch: Batch, processor: Processor, seconds: float) -> list[dict[str, Any]]:
    tokens, mask, logprobs = (np.asarray(x) for x in jax.device_get(generated))
    rows = []
    for i, sample in enumerate(batch.samples):
        own = tokens[i][mask[i]]
        rows.append(
            {
                "id": sample.id,
                "prediction": processor.decode(own),
                "tokens": len(own),
                "log_probability": float(logprobs[i][mask[i]].sum()),
                "finished": bool(len(own)) and int(own[-1]) in processor.eos_ids,
                "seconds": round(seconds / len(batch.samples), 4),
            }
        )
    return rows
