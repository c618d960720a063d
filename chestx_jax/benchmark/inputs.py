"""Models, prompts and rows to measure with: random, but the same for everyone who is measured."""

import string
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from chestx_jax.benchmark.jobs import MODEL, SAMPLES
from chestx_jax.benchmark.sizes import Size
from chestx_jax.data import Processor, Sample, write_samples
from chestx_jax.data.positions import mrope_positions
from chestx_jax.data.tokenizer import train_tokenizer
from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig
from chestx_jax.training.setup import fit_to_tokenizer
from chestx_jax.weights import save_pretrained

PROCESSOR = "processor"
PICTURES = 64
FRAME = ("system\nYou are a helpful assistant.", "user\n", "assistant\n")


def prepare(size: Size, out: Path, prompt_tokens: int) -> None:
    """Under `out`: a model with random weights in the Hugging Face layout, its processor, and samples whose prompts
    (an image, a question of made-up words) are no longer than `prompt_tokens`."""
    rng = np.random.default_rng(0)
    letters = np.array(list(string.ascii_lowercase))
    words = ["".join(rng.choice(letters, rng.integers(3, 8))) for _ in range(size.model.vocab_size * 2)]
    train_tokenizer([*FRAME * 50, " " + " ".join(words)], size.model.vocab_size, out / PROCESSOR)
    processor = Processor.from_pretrained(out / PROCESSOR, image_size=size.image_size)
    config = fit_to_tokenizer(size.model, processor)
    model = Qwen2VL(config, rngs=nnx.Rngs(params=0), param_dtype=jnp.float32)
    save_pretrained(model, out / MODEL, out / PROCESSOR)
    samples = [
        _sample(out, number, words, prompt_tokens, processor, rng, size.image_size)
        for number in range(PICTURES)
    ]
    write_samples(out / SAMPLES, samples)  # last: a directory that has it is whole


def _sample(
    out: Path,
    number: int,
    words: list[str],
    prompt_tokens: int,
    processor: Processor,
    rng: np.random.Generator,
    side: int,
) -> Sample:
    name = f"{number}.png"
    Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(out / name)
    question = ""
    for word in rng.permutation(words):
        longer = _question(out, number, name, f"{question} {word}".strip())
        if processor.lengths([longer], mode="answer", target=False)[0, 0] > prompt_tokens:
            break
        question = longer.question
    return _question(out, number, name, question)


def _question(out: Path, number: int, image: str, question: str) -> Sample:
    return Sample(
        id=str(number),
        study=str(number),
        patient=None,
        source="random",
        task="anomaly",
        images=(image,),
        question=question,
        options=None,
        answer="none",
        answer_text="none",
        reason_steps=(),
        report="none",
        root=out,
    )


def rows(config: Qwen2VLConfig, patches: int, batch: int, tokens: int, images: int) -> dict[str, np.ndarray]:
    """A batch without padding: each row its images, then random text, all of which is to be predicted;
    the arrays of `data.example.Example` with a leading `batch`.

    Args:
      patches: of each image, a square.

    Raises:
      ValueError: the images leave no room for text.
    """
    rng = np.random.default_rng([batch, tokens, images])
    merged, side = patches // config.vision.merge_unit, int(patches**0.5)
    image = [config.vision_start_token_id, *[config.image_token_id] * merged, config.vision_end_token_id]
    text = tokens - images * len(image)
    if text < 1:
        raise ValueError(f"{images} images of {len(image)} tokens leave no room for text in {tokens}")
    ids = np.concatenate(
        [np.tile(np.asarray(image * images, np.int32), (batch, 1)), _text(config, rng, (batch, text))], axis=1
    )
    merge = config.vision.spatial_merge_size
    positions, _ = mrope_positions(
        ids[0], [(1, side, side)] * images, image_token_id=config.image_token_id, merge=merge
    )
    place = np.indices((side, side)).reshape(2, side // merge, merge, side // merge, merge)
    hw = np.tile(place.transpose(1, 3, 2, 4, 0).reshape(-1, 2), (images, 1)).astype(np.int32)
    is_image = ids == config.image_token_id
    return {
        "tokens": ids,
        "positions": np.tile(positions, (batch, 1, 1)),
        "segments": np.ones((batch, tokens), np.int32),
        "loss_mask": np.arange(tokens)[None] >= np.full((batch, 1), max(1, tokens - text)),
        "patches": rng.standard_normal((batch, images * patches, config.vision.patch_dim), np.float32),
        "patch_hw": np.tile(hw, (batch, 1, 1)),
        "patch_segments": np.tile(np.repeat(np.arange(1, images + 1, dtype=np.int32), patches), (batch, 1)),
        "image_index": np.where(is_image, np.cumsum(is_image, axis=1) - 1, -1).astype(np.int32),
    }


def _text(config: Qwen2VLConfig, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    special = {value for name, value in vars(config).items() if name.endswith("token_id")}
    ordinary = np.setdiff1d(np.arange(config.vocab_size - 64), list(special))
    return rng.choice(ordinary, shape).astype(np.int32)
