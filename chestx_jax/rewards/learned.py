"""The learned process reward: a process reward model's verdict on every step, as a reward function.

    learned=dict(function="learned:DIR", weight=1.0, clip=(-1.0, 1.0), schedule=())

DIR is the workdir of `launch.process_reward`, or one of its checkpoints. A step is worth P(supported) -
P(contradicted), -1 to 1; where steps are credited, one that cannot be verified is worth `UNVERIFIABLE`. "learned:DIR"
gives a reasoning its worst verifiable step (a chain is as good as its weakest link: PRM-Min of Lightman et al. 2023,
arXiv 2305.20050), "learned-mean:DIR" the mean over all steps, where idle steps dilute, "learned-last:DIR" the last
verifiable step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from chestx_jax.data.example import Bucket, Example, stack
from chestx_jax.data.processor import Processor
from chestx_jax.data.schema import Sample
from chestx_jax.models.process_reward import add_step_head, step_logits
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import agree, batch_share, gather, make_mesh, own_rows, put_rows
from chestx_jax.rewards.process import STEP_VALUES
from chestx_jax.rewards.signature import Completion, RewardError, StepReward, Stepwise, Together, text_of
from chestx_jax.rollout import TokenSpans
from chestx_jax.rollout.spans import Span
from chestx_jax.rollout.steps import steps_of
from chestx_jax.weights import companions, find_step, load_pretrained
from chestx_jax.weights.pretrained import patch_shape

UNVERIFIABLE = STEP_VALUES["empty"]
"""What a step that cannot be verified is worth: as much as an idle one by the rules."""

_Row = tuple[Example, Int[np.ndarray, " T"], tuple[Span, ...]]
"""Prompt and completion, the step of each token, and the steps' spans in the text."""

ROWS, TOKEN_STEP, STEP_STEP = 32, 64, 16
"""Completions at a time, at least, and what tokens and steps are padded to a multiple of: few programs."""


def judging_mesh(devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Where a reward model lies: cut over all devices. A pass has thousands of rows to each gathered weight."""
    return make_mesh({"replica": 1, "fsdp": -1, "tensor": 1}, devices)


def rows_at_a_time(mesh: jax.sharding.Mesh) -> int:
    """ROWS, rounded up so that the devices share them evenly."""
    return _round_up(ROWS, mesh.size)


def _least(values: Float[np.ndarray, " S"], judged: np.ndarray) -> float:
    return float(values[judged].min()) if judged.any() else 0.0


def _mean(values: Float[np.ndarray, " S"], judged: np.ndarray) -> float:
    return float(np.where(judged, values, 0.0).mean())


def _last(values: Float[np.ndarray, " S"], judged: np.ndarray) -> float:
    return float(values[judged][-1]) if judged.any() else 0.0


AGGREGATES: Mapping[str, Callable[..., float]] = {
    "learned": _least,
    "learned-mean": _mean,
    "learned-last": _last,
}


@dataclass(frozen=True)
class Judge:
    """A frozen process reward model with all that it takes to read completions."""

    model: Qwen2VL
    processor: Processor
    spans: TokenSpans
    mesh: jax.sharding.Mesh

    @classmethod
    def load(cls, directory: str) -> Judge:
        """From a workdir of `launch.process_reward`, over all devices of all processes; adapters merged.

        Raises:
          CheckpointError, WeightsError, ProcessorError: the directory is no such run; names what is missing.
          ClusterError: processes find different checkpoints there.
        """
        agree({f"checkpoint of learned:{directory}": str(find_step(directory))})
        mesh = judging_mesh()
        processor = Processor.from_pretrained(companions(directory))
        return cls(
            load_pretrained(directory, mesh=mesh, extend=add_step_head),
            processor,
            TokenSpans.of(processor.tokenizer.backend_tokenizer),
            mesh,
        )

    def verdicts(
        self, samples: Sequence[Sample], texts: Sequence[str]
    ) -> list[tuple[Float[np.ndarray, "S 3"], tuple[Span, ...]]]:
        """Probabilities of `models.process_reward.VERDICTS`, and the span in its text, of each step of each
        completion of the samples' prompts.

        The model is cut over the devices of all processes, so that all call this together, each with its own
        completions, however many: one that has none left fills rows while the others read theirs.
        """
        prompts: dict[tuple[Any, ...], Example] = {}
        read = []
        for sample, text in zip(samples, texts, strict=True):
            key = (sample.root, sample.images, sample.question)
            if key not in prompts:
                prompts[key] = self.processor(sample, mode="reason", target=False)
            tokens = self.processor.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
            ids, spans = steps_of(self.spans, tokens)
            ids = np.pad(ids, (prompts[key].num_tokens, 0), constant_values=-1)
            read.append((continued(prompts[key], tokens), ids, spans))
        count = rows_at_a_time(self.mesh) // batch_share(self.mesh)[1]
        passes = [read[start : start + count] for start in range(0, len(read), count)]
        rooms = gather([_room(rows) for rows in passes])
        found = []
        for rows, *room in itertools.zip_longest(passes, *rooms, fillvalue=()):
            tokens, patches, steps = np.max([one for one in room if one], axis=0).tolist()
            found += self._judge(rows, count, Bucket(tokens, patches), steps)
        return found

    def _judge(self, rows: Sequence[_Row], count: int, bucket: Bucket, steps: int) -> list[Any]:
        """One pass: of this process's `count` rows those that are not filling."""
        blank = _blank(math.prod(patch_shape(self.model.config)))
        examples = [*(example for example, _, _ in rows), *[blank] * (count - len(rows))]
        ids = np.full((count, bucket.tokens), -1, np.int32)
        for target, (_, row, _) in zip(ids, rows, strict=False):
            target[: len(row)] = row
        with jax.set_mesh(self.mesh):
            batch, laid = put_rows(self.mesh, (stack(examples, bucket, self.processor.pad_id), ids))
            out = own_rows(self.mesh, probabilities(self.model, batch, laid, steps))
        return [(row[: len(spans)], spans) for row, (_, _, spans) in zip(out, rows, strict=False)]


def _room(rows: Sequence[_Row]) -> tuple[int, int, int]:
    """The tokens, patches and steps that hold these rows: few sizes, so few programs."""
    return (
        _round_up(max(example.num_tokens for example, _, _ in rows), TOKEN_STEP),
        max(example.num_patches for example, _, _ in rows),
        _round_up(max(1, *(len(spans) for _, _, spans in rows)), STEP_STEP),
    )


def _blank(patch_size: int) -> Example:
    """No token and no patch: a row of padding."""
    none = np.zeros(0, np.int32)
    return Example(
        tokens=none,
        positions=np.zeros((3, 0), np.int32),
        segments=none,
        loss_mask=np.zeros(0, bool),
        patches=np.zeros((0, patch_size), np.float32),
        patch_hw=np.zeros((0, 2), np.int32),
        patch_segments=none,
        image_index=none,
    )


@partial(jax.jit, static_argnums=3)
def probabilities(
    model: Qwen2VL, batch: Any, step_ids: Int[jax.Array, "B T"], steps: int
) -> Float[jax.Array, "B S 3"]:
    """Those of `models.process_reward.VERDICTS` for each of `steps` steps, as one program."""
    return jax.nn.softmax(step_logits(model, batch, step_ids, steps))


def continued(prompt: Example, tokens: Sequence[int]) -> Example:
    """A prompt with a completion behind it; no image is read again."""
    count = len(tokens)
    position = int(prompt.positions.max()) + 1 + np.arange(count, dtype=np.int32)
    return replace(
        prompt,
        tokens=np.concatenate([prompt.tokens, np.asarray(tokens, np.int32)]),
        positions=np.concatenate([prompt.positions, np.tile(position, (3, 1))], axis=1).astype(np.int32),
        segments=np.ones(prompt.num_tokens + count, np.int32),
        loss_mask=np.zeros(prompt.num_tokens + count, bool),
        image_index=np.concatenate([prompt.image_index, np.full(count, -1, np.int32)]),
    )


@dataclass(frozen=True)
class LearnedReward(Together):
    """The reward function of a directory; the model is loaded by the first call.

    Raises:
      RewardError: the directory holds no checkpoint.
    """

    directory: str
    aggregate: str

    def __post_init__(self) -> None:
        if find_step(self.directory) is None:
            raise RewardError(
                f"reward '{self.aggregate}:{self.directory}': no checkpoint of launch.process_reward there"
            )

    @cached_property
    def judge(self) -> Judge:
        """The model, once loaded."""
        return Judge.load(self.directory)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Completion], **columns: Sequence[Any]
    ) -> list[float | None]:
        """Columns of the samples: `id`, `images`, `root`, `question`. A completion without steps earns 0."""
        samples = [
            Sample(
                id=name,
                study="",
                patient=None,
                source="",
                task="",
                images=images,
                question=question,
                options=None,
                answer="",
                answer_text="",
                root=root,
            )
            for name, images, root, question in zip(
                columns["id"], columns["images"], columns["root"], columns["question"], strict=True
            )
        ]
        verdicts = self.judge.verdicts(samples, [text_of(completion) for completion in completions])
        return [self._reward(probabilities, spans) for probabilities, spans in verdicts]

    def _reward(self, probabilities: Float[np.ndarray, "S 3"], spans: Sequence[Span]) -> Stepwise:
        if not len(spans):
            return Stepwise(0.0, ())
        values = probabilities[:, 0] - probabilities[:, 1]
        judged = np.argmax(probabilities, axis=1) != 2
        steps = [
            StepReward(start, end, float(value) if known else UNVERIFIABLE, link=bool(known))
            for (start, end), value, known in zip(spans, values, judged, strict=True)
        ]
        return Stepwise(AGGREGATES[self.aggregate](values, judged), steps)


def learned_reward(name: str) -> LearnedReward:
    """The reward that a name such as "learned-mean:DIR" stands for.

    Raises:
      RewardError: what stands before the colon is none of `AGGREGATES`, or the directory holds no checkpoint.
    """
    aggregate, _, directory = name.partition(":")
    if aggregate not in AGGREGATES:
        raise RewardError(f"reward {name!r}: {aggregate!r} is none of {', '.join(AGGREGATES)}")
    return LearnedReward(directory, aggregate)


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step
