"""Prompts to completions: batches of samples through the generation program, back as text and arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32, Int, Int32, Key

from chestx_jax.data.example import Bucket
from chestx_jax.data.pipeline import Batch
from chestx_jax.data.processor import Processor
from chestx_jax.data.schema import Sample
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.models.qwen2_vl.attention import MULTIPLES
from chestx_jax.parallel import own_rows, put_rows
from chestx_jax.rollout.decode import Generated, generate
from chestx_jax.rollout.layout import move
from chestx_jax.rollout.sampling import Sampling

BUCKET_STEP = 64  # prompts are padded to a multiple of this many tokens: few programs, little padding


@dataclass(frozen=True)
class Completion:
    """Completions of a batch of prompts, on the host: row p * group_size + g is completion g of prompt p.

    Attributes:
      samples: the sample that each row answers.
      texts: what was written, without special tokens.
      tokens, mask, logprobs: as in `Generated`; the mask takes in the end token.
      ended: False where `max_new_tokens` cut the text.
    """

    samples: tuple[Sample, ...]
    texts: tuple[str, ...]
    tokens: Int32[np.ndarray, "R N"]
    mask: Bool[np.ndarray, "R N"]
    logprobs: Float32[np.ndarray, "R N"]
    ended: Bool[np.ndarray, " R"]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def lengths(self) -> Int[np.ndarray, " R"]:
        """Tokens of each row, its end included."""
        return self.mask.sum(axis=1)


@dataclass(frozen=True)
class Engine:
    """Completes prompts with whatever weights it is given; one compiled program a shape of prompts.

    Attributes:
      mesh: where it writes (`layout.writing_mesh`); the weights it is given lie there.
      max_new_tokens: a completion is cut there.
      sampling: without `forbidden_ids`: the engine forbids what the processor says (vision and other special
        tokens, and ids that no token has).
      group_size: completions of each prompt.
    """

    processor: Processor
    mesh: Mesh
    max_new_tokens: int
    sampling: Sampling
    group_size: int = 1

    def sampling_for(self, model: Qwen2VL) -> Sampling:
        """As tokens of this model are drawn: what a trainer needs to compute the same log-probabilities."""
        forbidden = self.processor.forbidden_ids(model.config.vocab_size)
        return replace(self.sampling, forbidden_ids=forbidden)

    def take(self, model: Qwen2VL, mesh: Mesh) -> Qwen2VL:
        """The model, whose weights lie on `mesh`, as this engine writes with it: moved once, or itself where nothing
        has to move."""
        return model if mesh == self.mesh else move(model, self.mesh)

    def generate(
        self, model: Qwen2VL, batch: Batch, key: Key[Array, ""], prompt_ids: Int[np.ndarray, " P"]
    ) -> Generated:
        """Starts the generation program and returns its arrays on the device, filling rows included.

        Args:
          batch: this process's prompts, without targets (`Pipeline(target=False)`, `ordered_batches(target=False)`).
          prompt_ids: a number for each prompt that is not filling; completion g of prompt i draws from
            `fold_in(key, i * group_size + g)`, whatever batch and device it falls to.
        """
        ids = np.asarray(prompt_ids, np.int32) if len(prompt_ids) else np.zeros(1, np.int32)
        ids = np.pad(ids, (0, len(batch.row_mask) - len(ids)), mode="edge")
        rows = (ids[:, None] * self.group_size + np.arange(self.group_size, dtype=np.int32)).reshape(-1)
        bits = jax.device_get(jax.random.key_data(key))  # it may come from the training mesh
        with jax.set_mesh(self.mesh):
            return generate(
                model,
                put_rows(self.mesh, batch.arrays),
                max_new_tokens=self.max_new_tokens,
                eos_ids=self.processor.eos_ids,
                sampling=self.sampling_for(model),
                key=jax.random.wrap_key_data(bits),
                row_ids=put_rows(self.mesh, rows),
                group_size=self.group_size,
            )

    def read(self, generated: Generated, batch: Batch) -> Completion:
        """Waits for the arrays and decodes this process's rows; filling ones are left out."""
        rows = len(batch.samples) * self.group_size
        tokens, mask, logprobs = (x[:rows] for x in own_rows(self.mesh, generated))
        own = [row[here] for row, here in zip(tokens, mask, strict=True)]
        return Completion(
            samples=tuple(sample for sample in batch.samples for _ in range(self.group_size)),
            texts=tuple(self.processor.decode(row) for row in own),
            tokens=tokens,
            mask=mask,
            logprobs=logprobs,
            ended=np.array([int(row[-1]) in self.processor.eos_ids for row in own], bool),
        )

    def complete(
        self, model: Qwen2VL, batch: Batch, key: Key[Array, ""], prompt_ids: Int[np.ndarray, " P"]
    ) -> Completion:
        """`generate`, then `read`."""
        return self.read(self.generate(model, batch, key, prompt_ids), batch)


def prompt_buckets(
    processor: Processor, samples: Sequence[Sample], mode: str, attention: str
) -> tuple[Bucket, ...]:
    """The few static shapes that the prompts of these samples need, of lengths that the model's attention takes."""
    lengths = processor.lengths(samples, mode=mode, target=False)
    multiple = MULTIPLES[attention]
    steps = np.array([math.lcm(BUCKET_STEP, multiple), multiple])
    rounded = -(-lengths // steps) * steps
    return tuple(Bucket(int(tokens), int(patches)) for tokens, patches in set(map(tuple, rounded)))
