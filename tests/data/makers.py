"""Small samples, pictures and a small processor for the tests of the processor and the pipeline."""

from pathlib import Path

import numpy as np
from PIL import Image

from chestx_jax.data.schema import Sample, question_text
from chestx_jax.data.tokenizer import train_tokenizer

WORDS = "Does this chest X-ray show cardiomegaly pleural effusion edema? The heart is large. <think> </think>"
SIZE = 56


def make_processor_dir(path: Path) -> Path:
    train_tokenizer([WORDS, "Options:\nA) Yes\nB) No <answer> A </answer>"] * 4, 400, path)
    return path


def make_picture(path: Path, seed: int, shape: tuple[int, int] = (60, 70)) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.name


def make_sample(root: Path, name: str, images: int = 1, steps: int = 1, **changes) -> Sample:
    """A binary sample with `images` pictures of its own in `root` and a reasoning of `steps` sentences."""
    values = dict(
        id=name,
        study=name,
        patient=None,
        source="test",
        task="binary",
        images=tuple(make_picture(root / f"{name}-{i}.png", len(name) + i) for i in range(images)),
        question=question_text("Does this chest X-ray show edema?", ("Yes", "No")),
        options=("Yes", "No"),
        answer="A",
        answer_text="Yes",
        reason_steps=("The heart is large.",) * steps,
        report="FINDINGS: Edema.",
        root=root,
    )
    return Sample(**{**values, **changes})
