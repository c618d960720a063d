"""A loaded model with its processor: answers a file of samples, or one question."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from chestx_jax.data import Processor, Sample, read_samples
from chestx_jax.data.chat import parse
from chestx_jax.evaluation.predict import Decoding, predict
from chestx_jax.evaluation.predictions import PredictionWriter
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import gather, gather_shares, is_first, make_mesh
from chestx_jax.rewards.learned import learned_reward
from chestx_jax.storage import absolute
from chestx_jax.weights import companions, load_pretrained

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inference:
    """What it takes to answer. `source` names the model in the settings that lie beside predictions."""

    model: Qwen2VL
    processor: Processor
    mesh: Mesh
    source: str

    @classmethod
    def load(
        cls,
        directory: str,
        processor: str | None,
        *,
        image_size: int | None,
        dtype: str | None,
        tensor: int = 1,
    ) -> "Inference":
        """From a Hugging Face directory or a checkpoint of ours, over all devices.

        Args:
          tensor: devices that share the weights; with 1 each holds them all (see `rollout.layout`).

        Raises:
          WeightsError, CheckpointError, ProcessorError: the directory is not usable; names what is missing.
          MeshError: `tensor` does not divide the devices.
        """
        mesh = make_mesh({"replica": -1, "fsdp": 1, "tensor": tensor})
        loaded = load_pretrained(directory, dtype=None if dtype is None else jnp.dtype(dtype), mesh=mesh)
        processor_directory = processor or companions(directory)
        return cls(
            loaded,
            Processor.from_pretrained(processor_directory, image_size=image_size),
            mesh,
            str(directory),
        )

    def predict_file(
        self, data: Path, out: Path, decoding: Decoding, process_reward: str | None = None
    ) -> None:
        """Predict every sample of `data` that `out` does not hold yet. Of several processes each predicts its share,
        and the first writes.

        Args:
          process_reward: workdir of the process reward model that picks the best of `decoding.best_of`.
        """
        reward = None if process_reward is None else learned_reward(f"learned:{process_reward}")
        samples = read_samples(data)
        decoding = replace(decoding, batch_size=self._whole_batch(decoding.batch_size))
        settings = {"model": self.source, "image_size": self.processor.image_size, **asdict(decoding)}
        settings |= {} if process_reward is None else {"process_reward": process_reward}
        del settings["batch_size"]  # decides nothing but speed
        writer = PredictionWriter(out, settings) if is_first() else None
        done_before = gather(writer.done if writer else frozenset[str]())[0]
        todo = [sample for sample in samples if sample.id not in done_before]
        log.info("%d of %d samples to predict", len(todo), len(samples))
        began, done = time.monotonic(), 0
        try:
            with jax.set_mesh(self.mesh):
                for part in predict(self.model, self.processor, todo, decoding, self.mesh, reward):
                    rows = _joined(self.mesh, part)
                    if writer:
                        writer.write(rows)
                    done += len(rows)
                    rate = done / (time.monotonic() - began)
                    log.info("%d/%d samples  %.1f a second", done, len(todo), rate)
        finally:
            if writer:
                writer.close()

    def ask(self, images: Sequence[Path], question: str, decoding: Decoding) -> str:
        """Reasoning and answer to one question, as text for a terminal."""
        sample = Sample(
            id="question",
            study="",
            patient=None,
            source="",
            task="anomaly",
            images=tuple(str(absolute(image)) for image in images),
            question=question,
            options=None,
            answer="",
            answer_text="",
        )
        decoding = replace(decoding, batch_size=self._whole_batch(1))
        with jax.set_mesh(self.mesh):
            (row,) = _joined(
                self.mesh, next(predict(self.model, self.processor, [sample], decoding, self.mesh))
            )
        parsed = parse(row["prediction"])
        if parsed.answer is None:
            return f"No answer could be read from: {row['prediction']}"
        steps = "\n".join(f"  {i}. {step}" for i, step in enumerate(parsed.steps, start=1))
        return (f"Reasoning:\n{steps}\n" if steps else "") + f"Answer: {parsed.answer}"

    def _whole_batch(self, batch_size: int) -> int:
        """`batch_size`, rounded up so that the devices share it evenly."""
        devices = self.mesh.shape["replica"] * self.mesh.shape["fsdp"]
        return -(-batch_size // devices) * devices


def _joined(mesh: Mesh, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all processes, in the order of the batch."""
    return [row for part in gather_shares(mesh, rows) for row in part]
