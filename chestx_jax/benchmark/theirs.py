"""The same work in transformers with torch: the same weights, rows and optimizer. Needs the parity extra."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText

from chestx_jax.benchmark.clock import Measured, repeat
from chestx_jax.benchmark.inputs import rows
from chestx_jax.benchmark.jobs import MODEL, Job
from chestx_jax.benchmark.sizes import SIZES
from chestx_jax.weights import read_config

LEARNING_RATE, CLIP = 1e-5, 1.0


def train(job: Job, directory: Path) -> Measured:
    """Training steps as `transformers.Trainer` takes them: fused AdamW, gradients clipped, its own loss."""
    model, batch = _load(job, directory)
    model.train()
    inputs, labels = (
        _inputs(batch),
        torch.from_numpy(np.where(batch["loss_mask"], batch["tokens"], -100)).long(),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    losses = []

    def call() -> None:
        loss = model(**inputs, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))

    found = repeat(call, job.repeats)
    found.facts = {"first_loss": losses[0]}
    return found


def generation(job: Job, directory: Path) -> Measured:
    """Greedy continuations that never end early."""
    model, batch = _load(job, directory)
    model.eval()
    inputs, config = _inputs(batch), model.config
    drawn = []

    def call() -> None:
        with torch.no_grad():
            out = model.generate(
                **inputs,
                max_new_tokens=job.new_tokens,
                min_new_tokens=job.new_tokens,
                do_sample=False,
                suppress_tokens=[config.image_token_id, config.video_token_id],
                eos_token_id=None,
                pad_token_id=0,
            )
        drawn.append(out[:, job.tokens :].numpy())

    found = repeat(call, job.repeats)
    found.facts = {"tokens": drawn[0].tolist()}
    return found


def _load(job: Job, directory: Path) -> tuple[Any, Mapping[str, np.ndarray]]:
    model = AutoModelForImageTextToText.from_pretrained(directory / MODEL, dtype=torch.float32)
    config, _ = read_config(directory / MODEL)
    return model, rows(config, SIZES[job.size].patches, job.batch, job.tokens, job.images)


def _inputs(batch: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """What `Qwen2VLForConditionalGeneration` takes."""
    images = int(batch["patch_segments"].max(initial=0))
    rows_, patches, width = batch["patches"].shape
    side = round((patches / images) ** 0.5)
    return {
        "input_ids": torch.from_numpy(batch["tokens"]).long(),
        "attention_mask": torch.from_numpy(batch["segments"]).long(),
        "pixel_values": torch.from_numpy(batch["patches"]).reshape(-1, width),
        "image_grid_thw": torch.tensor([[1, side, side]] * (rows_ * images)),
        "mm_token_type_ids": torch.from_numpy(batch["image_index"] >= 0).int(),
    }
