"""Sample and images to arrays: the Hugging Face processor of Qwen2-VL without torch, and with training
targets."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from chestx_jax.data import chat
from chestx_jax.data.example import Example
from chestx_jax.data.images import ImageError, load_image
from chestx_jax.data.patches import PatchConfig, PatchError, grid_of, patchify
from chestx_jax.data.positions import mrope_positions
from chestx_jax.data.processor_files import (
    FILES,
    OURS,
    ProcessorError,
    read_image_size,
    read_patch_config,
    read_tokenizer,
)
from chestx_jax.data.schema import Sample
from chestx_jax.storage import small_files, to_path

END, END_OF_TEXT, START = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
REQUIRED_TOKENS = (END_OF_TEXT, START, END, VISION_START, VISION_END, IMAGE, VIDEO)

__all__ = ["FILES", "Processor", "ProcessorError"]


@dataclass(frozen=True)
class Processor:
    """Turns samples into `Example`s, and tokens back into text. Make one with `from_pretrained`.

    Attributes:
      directory: where the files are; copies on this machine when they came out of a bucket.
      tokenizer: the fast tokenizer of transformers, with its chat template.
      patch_config: how an image is cut into patches.
      image_size: side in pixels of the square that `load_image` makes of every image file.
    """

    directory: Path
    tokenizer: Any
    patch_config: PatchConfig
    image_size: int

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, image_size: int | None = None) -> "Processor":
        """Reads the processor files of a Hugging Face directory; needs neither torch nor torchvision.

        Args:
          image_size: side in pixels of the square that every image becomes; None takes the one that
            `save_pretrained` left there, or else the published 448.

        Raises: ProcessorError when files or special tokens are missing, or `image_size` would be resized
        once more.
        """
        directory = small_files(to_path(directory), (*FILES, OURS))
        patch_config = read_patch_config(directory)
        if image_size is None:
            image_size = read_image_size(directory)
        _, rows, cols = grid_of(image_size, image_size, patch_config)
        if (rows * patch_config.patch, cols * patch_config.patch) != (image_size, image_size):
            better = f"{rows * patch_config.patch}x{cols * patch_config.patch}"
            raise ProcessorError(
                f"image_size {image_size}: {directory} would resize it again, to {better}: use that"
            )
        processor = cls(directory, read_tokenizer(directory), patch_config, image_size)
        unknown = [token for token in REQUIRED_TOKENS if token not in processor._special_ids]
        if unknown:
            raise ProcessorError(
                f"{directory}: the tokenizer lacks the special token(s) {', '.join(unknown)}"
            )
        return processor

    def save_pretrained(self, directory: str | Path) -> None:
        """Copies the processor's files, as they are, into `directory` (made if need be), and notes
        `image_size` beside them."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            source = self.directory / name
            if source.is_file() and source.resolve() != (directory / name).resolve():
                shutil.copyfile(source, directory / name)
        (directory / OURS).write_text(json.dumps({"image_size": self.image_size}) + "\n")

    def digest(self) -> str:
        """Short hash of the processor's files: two that agree make the same arrays of the same sample."""
        digest = hashlib.sha256()
        for name in FILES:
            if (self.directory / name).is_file():
                digest.update(name.encode() + b"\0" + (self.directory / name).read_bytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        added = self.tokenizer.backend_tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    @cached_property
    def _special_text(self) -> re.Pattern[str]:
        return re.compile(
            "|".join(re.escape(token) for token in sorted(self._special_ids, key=len, reverse=True))
        )

    @property
    def image_token_id(self) -> int:
        return self._special_ids[IMAGE]

    @property
    def vocab_size(self) -> int:
        """Tokens in all, special ones included; a model's vocabulary may be padded beyond it."""
        return len(self.tokenizer)

    def token_ids(self) -> dict[str, int]:
        """Special ids under the names that a Qwen2-VL model configuration has for them."""
        names = {
            "bos_token_id": END_OF_TEXT,
            "eos_token_id": END,
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
            "vision_start_token_id": VISION_START,
            "vision_end_token_id": VISION_END,
        }
        return {name: self._special_ids[token] for name, token in names.items()}

    @property
    def pad_id(self) -> int:
        """Fills the places that `segments` marks as padding; it may equal a token that ends a text."""
        return self._special_ids[END_OF_TEXT]

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: `<|im_end|>` first, then `<|endoftext|>`."""
        return self._special_ids[END], self._special_ids[END_OF_TEXT]

    def forbidden_ids(self, vocab_size: int) -> tuple[int, ...]:
        """Ids that must never be sampled from a model with `vocab_size` logits.

        Every special token but those that end a text (images, video, boxes, `<|im_start|>`), and the ids
        that no token has: models pad their vocabulary.

        Raises: ProcessorError when the tokenizer has more tokens than the model.
        """
        known = self.vocab_size
        if known > vocab_size:
            raise ProcessorError(
                f"{self.directory}: {known} tokens, but the model's vocabulary has {vocab_size}"
            )
        return (*sorted(set(self._special_ids.values()) - set(self.eos_ids)), *range(known, vocab_size))

    def decode(self, tokens: Sequence[int] | Int[np.ndarray, " T"]) -> str:
        """The text of the tokens, without special tokens."""
        return self.tokenizer.backend_tokenizer.decode(
            [int(token) for token in tokens], skip_special_tokens=True
        )

    def __call__(
        self,
        sample: Sample,
        images: Sequence[UInt8[np.ndarray, "H W 3"]] | None = None,
        *,
        mode: str,
        target: bool,
        room: Float32[np.ndarray, "R F"] | None = None,
    ) -> Example:
        """One sample as arrays.

        Args:
          sample: names itself in every error.
          images: RGB bytes of any size in the order of the sample; None reads the sample's own files.
          mode: "reason" or "answer", see `chat.messages`.
          target: True for training: prompt, answer and `<|im_end|>`, of which the last two are in
            `loss_mask`. False for generation: the prompt up to where the assistant begins.
          room: the example's patches become the first rows of this array, if given (a row of a batch).

        Raises:
          ProcessorError: text that holds a special token, image tokens that disagree with the images, or more
            patches than there is room for.
          ImageError: an image that cannot be read; names sample and file.
        """
        if images is None:
            images = self._load(sample)
        try:
            grids = [grid_of(image.shape[0], image.shape[1], self.patch_config) for image in images]
            vision = self._cut(images, grids, room)
        except PatchError as error:
            raise ProcessorError(f"sample {sample.id!r}, field images: {error}") from error
        prompt, answer = self.texts([sample], mode=mode, target=target)[0]
        encode = self.tokenizer.backend_tokenizer.encode
        prompt_ids = encode(prompt, add_special_tokens=False).ids
        answer_ids = encode(answer, add_special_tokens=False).ids
        tokens = self._expand(sample, np.asarray(prompt_ids + answer_ids, np.int32), grids)
        positions, _ = mrope_positions(
            tokens, grids, image_token_id=self.image_token_id, merge=self.patch_config.merge
        )
        is_image = tokens == self.image_token_id
        return Example(
            tokens=tokens,
            positions=positions,
            segments=np.ones(len(tokens), np.int32),
            loss_mask=np.arange(len(tokens)) >= len(tokens) - len(answer_ids),
            image_index=np.where(is_image, np.cumsum(is_image) - 1, -1).astype(np.int32),
            **vision,
        )

    def blank_image(self) -> UInt8[np.ndarray, "H W 3"]:
        """A mid-grey square of the size of every image: stands in where a model is to see nothing."""
        return np.full((self.image_size, self.image_size, 3), 128, np.uint8)

    def texts(self, samples: Sequence[Sample], *, mode: str, target: bool) -> list[tuple[str, str]]:
        """Prompt, as the chat template renders it, and answer with its `<|im_end|>` ("" without target) of
        each sample.

        Raises: ProcessorError when question, answer or reasoning holds a special token: it would be read as
        structure.
        """
        rendered = []
        for sample in samples:
            self._refuse_specials(sample, target)
            prompt = self.tokenizer.apply_chat_template(
                chat.messages(sample, mode), tokenize=False, add_generation_prompt=True
            )
            rendered.append((prompt, chat.target(sample, mode) + END if target else ""))
        return rendered

    def lengths(self, samples: Sequence[Sample], *, mode: str, target: bool) -> Int[np.ndarray, "N 2"]:
        """Tokens and patches of each sample's example, known from its text and `image_size` without opening
        an image."""
        texts = self.texts(samples, mode=mode, target=target)
        encode = self.tokenizer.backend_tokenizer.encode_batch_fast
        count = np.zeros(len(samples), np.int64)
        for part in (0, 1):  # apart, as in __call__
            encoded = encode([text[part] for text in texts], add_special_tokens=False)
            count += np.array([len(encoding.ids) for encoding in encoded], np.int64)
        patches = int(np.prod(grid_of(self.image_size, self.image_size, self.patch_config)))
        images = np.array([len(sample.images) for sample in samples], np.int64)
        extra = patches // self.patch_config.merge**2 - 1  # the template writes one token an image
        return np.stack([count + images * extra, images * patches], axis=1)

    def _load(self, sample: Sample) -> list[UInt8[np.ndarray, "H W 3"]]:
        images = []
        for index, path in enumerate(sample.image_paths):
            try:
                images.append(load_image(path, self.image_size))
            except ImageError as error:  # begins with the file's path
                raise ImageError(f"sample {sample.id!r}, field images[{index}], file {error}") from error
        return images

    def _refuse_specials(self, sample: Sample, target: bool) -> None:
        fields = {"question": sample.question}
        if target:
            fields |= {"answer": sample.answer, "answer_text": sample.answer_text}
            fields |= {f"reason_steps[{i}]": step for i, step in enumerate(sample.reason_steps)}
        for name, text in fields.items():
            if found := self._special_text.search(text):
                raise ProcessorError(
                    f"sample {sample.id!r}, field {name}: holds the special token {found[0]}"
                )

    def _expand(
        self, sample: Sample, tokens: np.ndarray, grids: Sequence[tuple[int, int, int]]
    ) -> np.ndarray:
        """Repeats each image token to one a merged patch."""
        is_image = tokens == self.image_token_id
        if is_image.sum() != len(grids):
            counts = f"{is_image.sum()} image token(s) in the text, but {len(grids)} image(s)"
            raise ProcessorError(f"sample {sample.id!r}, field images: {counts}")
        repeats = np.ones(len(tokens), np.int64)
        repeats[is_image] = [t * h * w // self.patch_config.merge**2 for t, h, w in grids]
        return np.repeat(tokens, repeats)

    def _cut(
        self,
        images: Sequence[np.ndarray],
        grids: Sequence[tuple[int, int, int]],
        room: Float32[np.ndarray, "R F"] | None,
    ) -> dict[str, np.ndarray]:
        """The patch arrays of an example, images one after the other; each is written in place, never
        copied."""
        counts = [h * w for _, h, w in grids]
        if room is None:
            room = np.empty((sum(counts), self.patch_config.width), np.float32)
        if sum(counts) > len(room):
            raise PatchError(
                f"{len(images)} images make {sum(counts)} patches, but the bucket holds {len(room)}"
            )
        patches = room[: sum(counts)]
        places = [np.empty((0, 2), np.int32)]
        for image, stop, count in zip(images, np.cumsum(counts), counts, strict=True):
            places.append(patchify(image, self.patch_config, out=patches[stop - count : stop])[1])
        return {
            "patches": patches,
            "patch_hw": np.concatenate(places),
            "patch_segments": np.repeat(np.arange(1, len(counts) + 1, dtype=np.int32), counts),
        }
