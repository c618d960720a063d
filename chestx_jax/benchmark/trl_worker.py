"""A GRPO step in TRL, in TRL's own environment (benchmarks/other_environments.sh), which has nothing of ours.

python -m chestx_jax.benchmark.trl_worker JOB.json RESULT.json
"""

import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1", WANDB_DISABLED="true")

import torch
import trl
from datasets import Dataset
from PIL import Image
from transformers import (
    AutoTokenizer,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    TrainerCallback,
)

from chestx_jax.benchmark.clock import WARM_UP, Measured, peak_bytes, text_reward
from chestx_jax.benchmark.jobs import MODEL, SAMPLES


class Laps(TrainerCallback):
    """Times from the end of one step to the end of the next."""

    def __init__(self) -> None:
        self.cpu, self.wall = [time.process_time()], [time.perf_counter()]

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.cpu, self.wall = [time.process_time()], [time.perf_counter()]

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())


def reward(prompts: list, completions: list, **columns: Any) -> list[float]:
    return text_reward([completion[0]["content"] for completion in completions])


def load_processor(directory: Path) -> Qwen2VLProcessor:
    """With the image processor that needs no torchvision; videos are never asked for."""
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    template = (directory / "chat_template.jinja").read_text()
    setattr(Qwen2VLProcessor, "check_argument_for_proper_class", lambda self, name, value: None)  # noqa: B010
    images = Qwen2VLImageProcessorPil.from_pretrained(directory)
    return Qwen2VLProcessor(images, tokenizer, None, chat_template=template)


def prompts(directory: Path, count: int) -> Dataset:
    lines = [json.loads(line) for line in (directory / SAMPLES).read_text().splitlines()][:count]
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": line["question"]}],
                "images": [Image.open(directory / line["images"][0]).convert("RGB")],
            }
            for line in lines
        ]
    )


def grpo(job: dict[str, Any], directory: Path) -> Measured:
    """Steps of `GRPOTrainer`, one update a rollout, no reference model, no recomputation of activations."""
    processor = load_processor(directory / MODEL)
    special = processor.tokenizer.all_special_ids
    model = Qwen2VLForConditionalGeneration.from_pretrained(directory / MODEL, dtype=torch.float32)
    steps = WARM_UP + job["repeats"]
    laps = Laps()
    with tempfile.TemporaryDirectory() as out:
        settings = trl.GRPOConfig(
            output_dir=out,
            per_device_train_batch_size=job["batch"] * job["group"],
            num_generations=job["group"],
            max_completion_length=job["new_tokens"],
            beta=0.0,
            temperature=1.0,
            learning_rate=1e-5,
            max_steps=steps,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_steps=steps + 1,
            disable_tqdm=True,
            generation_kwargs={"suppress_tokens": special},
        )
        trainer = trl.GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=settings,
            train_dataset=prompts(directory, count=steps * job["batch"]),
            processing_class=processor,
            callbacks=[laps],
        )
        trainer.train()
        lengths = trainer._metrics["train"]["completions/mean_length"] or [
            row["completions/mean_length"]
            for row in trainer.state.log_history
            if "completions/mean_length" in row
        ]
    cpu = [after - before for before, after in zip(laps.cpu, laps.cpu[1:], strict=False)]
    wall = [after - before for before, after in zip(laps.wall, laps.wall[1:], strict=False)]
    return Measured(
        cpu[WARM_UP:],
        wall[WARM_UP:],
        first_cpu=cpu[0],
        peak_bytes=peak_bytes(),
        facts={"mean_length": lengths[-1], "versions": {"trl": trl.__version__, "torch": torch.__version__}},
    )


def main(job_path: Path, result_path: Path) -> None:
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    request = json.loads(job_path.read_text())
    found = grpo(request["job"], Path(request["directory"]))
    result_path.write_text(json.dumps(dataclasses.asdict(found)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
