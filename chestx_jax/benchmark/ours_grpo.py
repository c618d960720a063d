"""What our own GRPO step costs (`ours.py` has the other jobs)."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from chestx_jax.benchmark.clock import Measured, repeat, text_reward
from chestx_jax.benchmark.jobs import MODEL, SAMPLES, Job
from chestx_jax.benchmark.ours import LOSS_CHUNK, REMAT, STEPS, fresh_state, one_device
from chestx_jax.benchmark.sizes import SIZES
from chestx_jax.data import Processor, read_samples
from chestx_jax.data.example import Bucket
from chestx_jax.data.pipeline import Pipeline, Source
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.models.qwen2_vl.flops import grpo_update_flops, rollout_flops
from chestx_jax.rewards import RewardMixture
from chestx_jax.rollout import Engine, Sampling, TokenSpans
from chestx_jax.training.grpo.learner import Learner
from chestx_jax.training.grpo.objective import Objective
from chestx_jax.training.grpo.settings import Settings
from chestx_jax.training.grpo.update import make_score, make_update
from chestx_jax.weights import load_pretrained


@dataclasses.dataclass(frozen=True)
class Endless(Engine):
    """Completions that never end early: every one has the same length, whatever the weights."""

    def sampling_for(self, model: Qwen2VL) -> Sampling:
        usual = super().sampling_for(model)
        return dataclasses.replace(usual, forbidden_ids=(*usual.forbidden_ids, *self.processor.eos_ids))


def grpo(job: Job, directory: Path) -> Measured:
    """Whole steps of the learner: pictures read, completions drawn and rewarded, one update; no reference model."""
    mesh, size = one_device(), SIZES[job.size]
    processor = Processor.from_pretrained(directory / MODEL, image_size=size.image_size)
    samples = read_samples(directory / SAMPLES)
    prompts = Pipeline(
        [Source("random", samples, "answer")],
        processor,
        buckets=(Bucket(job.tokens, size.patches),),
        batch_size=job.batch,
        steps=STEPS,
        seed=0,
        target=False,
        read_threads=0,
    )
    objective = Objective(kl_weight=0.0, entropy_weight=0.0)
    sampling = Sampling(temperature=1.0)
    engine = Endless(processor, mesh, job.new_tokens, sampling, job.group)
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as workdir:
        model = load_pretrained(directory / MODEL, mesh=mesh, remat=REMAT)
        config, sampling = model.config, engine.sampling_for(model)
        graphdef, tx, schedule, state = fresh_state(model, mesh)
        del model
        update = make_update(
            graphdef, tx, schedule, objective, sampling, accumulation=1, chunk=LOSS_CHUNK, on_policy=True
        )
        learner = Learner(
            config=_learner_config(job.batch),
            settings=Settings(objective, engine.sampling, RewardMixture.from_config(REWARDS), updates=1),
            graphdef=graphdef,
            engine=engine,
            spans=TokenSpans.of(processor.tokenizer.backend_tokenizer),
            mesh=mesh,
            batches=prompts,
            score=make_score(graphdef, sampling, LOSS_CHUNK, parts=1),
            update=update,
            reference=None,
            workdir=Path(workdir),
            step=0,
        )
        seen: list[dict[str, Any]] = []

        def call() -> None:
            nonlocal state
            state, metrics = jax.block_until_ready(learner(state, next(prompts)))
            seen.append(metrics)

        found = repeat(call, job.repeats)
    lengths = (job.batch, job.group, job.tokens, size.patches, job.new_tokens)
    found.work = rollout_flops(config, *lengths) + grpo_update_flops(config, *lengths)
    found.facts = {
        "mean_length": float(seen[-1]["response/length_mean"]),
        "prompt_tokens": processor.lengths(samples, mode="answer", target=False)[:, 0].mean(),
        "rollout_seconds": sorted(m["seconds/rollout"] for m in seen[-job.repeats :])[job.repeats // 2],
    }
    return found


REWARDS = {
    "text": dict(
        function="chestx_jax.benchmark.ours_grpo.text_rewards", weight=1.0, clip=(-1.0, 1.0), schedule=()
    )
}


def text_rewards(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """`clock.text_reward` under the signature of reward functions."""
    return text_reward(completions)


def _learner_config(prompts: int) -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            batch_size=prompts,
            epochs=1,
            minibatches=1,
            table_every=STEPS + 1,
            table_prompts=1,
            advantage=dict(estimator="group", credit="scalar"),
            rollout=dict(refills=0, overlong="keep"),
        )
    )
