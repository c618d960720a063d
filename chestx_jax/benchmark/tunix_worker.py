"""Generation and a GRPO step in Tunix, in its own environment (benchmarks/other_environments.sh), which has nothing of
ours. Its Qwen2 reads no images: prompts are as long as ours, but all text.

python -m chestx_jax.benchmark.tunix_worker JOB.json RESULT.json
"""

import dataclasses
import importlib.metadata
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from transformers import AutoTokenizer
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.qwen2.model import ModelConfig, Qwen2
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

from chestx_jax.benchmark.clock import WARM_UP, Measured, peak_bytes, repeat, text_reward
from chestx_jax.benchmark.jobs import MODEL, SAMPLES

NEVER = [-1]  # end tokens: no completion ends early


def load_model(directory: Path) -> Qwen2:
    """The language model of the size that is measured, with random weights."""
    config = json.loads((directory / "config.json").read_text())
    config |= config.get("text_config", {})
    sizes = ModelConfig(
        num_layers=config["num_hidden_layers"],
        vocab_size=config["vocab_size"],
        embed_dim=config["hidden_size"],
        hidden_dim=config["intermediate_size"],
        num_heads=config["num_attention_heads"],
        head_dim=config["hidden_size"] // config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        rope_theta=1_000_000,
        norm_eps=config["rms_norm_eps"],
        use_tied_embedding=config["tie_word_embeddings"],
    )
    return Qwen2(sizes, rngs=nnx.Rngs(0))


def load_prompts(directory: Path, tokenizer: Any, tokens: int) -> list[str]:
    """Questions, repeated until they are `tokens` long."""
    lines = [json.loads(line) for line in (directory / SAMPLES).read_text().splitlines()]
    encoded = [tokenizer(" ".join([line["question"]] * 8))["input_ids"][: tokens - 1] for line in lines]
    return [tokenizer.decode(ids) for ids in encoded]


def generation(job: dict[str, Any], directory: Path) -> Measured:
    """Greedy continuations that never end early."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory / MODEL), load_model(directory / MODEL)
    sizes, total = model.config, job["tokens"] + job["new_tokens"]
    cache = CacheConfig(total, sizes.num_layers, sizes.num_kv_heads, sizes.head_dim)
    sampler = Sampler(model, tokenizer, cache)
    texts = load_prompts(directory, tokenizer, job["tokens"])
    batch = [texts[row % len(texts)] for row in range(job["batch"])]
    seen = []

    def call() -> None:
        out = sampler(
            batch,
            max_generation_steps=job["new_tokens"],
            max_prompt_length=job["tokens"],
            eos_tokens=NEVER,
        )
        seen.append((out.padded_prompt_tokens.shape, [len(row) for row in out.tokens]))

    found = repeat(call, job["repeats"])
    check(seen[-1][0] == (job["batch"], job["tokens"]), f"prompts of {seen[-1][0]}")
    check(set(seen[-1][1]) == {job["new_tokens"]}, f"completions of {seen[-1][1]} tokens")
    return found


def grpo(job: dict[str, Any], directory: Path) -> Measured:
    """Steps of `GRPOLearner`, one update a rollout, no reference model; a step is what lies between two rewards."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory / MODEL), load_model(directory / MODEL)
    texts = load_prompts(directory, tokenizer, job["tokens"])
    steps = WARM_UP + job["repeats"]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    cpu, wall, lengths = [time.process_time()], [time.perf_counter()], []

    def reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        cpu.append(time.process_time())
        wall.append(time.perf_counter())
        lengths.append(len(completions))
        return text_reward(completions)

    rollout = RolloutConfig(
        max_tokens_to_generate=job["new_tokens"],
        max_prompt_length=job["tokens"],
        kv_cache_size=job["tokens"] + job["new_tokens"],
        temperature=1.0,
        top_p=1.0,
        eos_tokens=NEVER,
    )
    training = RLTrainingConfig(
        actor_optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-5, weight_decay=0.0)),
        eval_every_n_steps=10**9,
        max_steps=steps + 1,
        mini_batch_size=job["batch"],
        train_micro_batch_size=job["batch"],
    )
    with mesh:
        cluster = RLCluster(
            actor=model,
            tokenizer=tokenizer,
            cluster_config=ClusterConfig(
                role_to_mesh=dict.fromkeys((Role.ACTOR, Role.ROLLOUT, Role.REFERENCE), mesh),
                training_config=training,
                rollout_config=rollout,
            ),
        )
        algorithm = GRPOConfig(num_generations=job["group"], num_iterations=1, beta=0.0)
        learner = GRPOLearner(rl_cluster=cluster, algo_config=algorithm, reward_fns=reward)
        learner.train(batches(texts, job["batch"], steps + 1))
    check(set(lengths) == {job["batch"] * job["group"]}, f"{lengths} completions a step")
    laps, walls = ([after - before for before, after in itertools.pairwise(x[1:])] for x in (cpu, wall))
    return Measured(
        laps[-job["repeats"] :],
        walls[-job["repeats"] :],
        first_cpu=cpu[2] - cpu[0],
        peak_bytes=peak_bytes(),
    )


def batches(texts: list[str], size: int, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of prompts, again and again."""
    for number in range(count):
        yield {"prompts": np.array([texts[(number * size + row) % len(texts)] for row in range(size)])}


def check(holds: bool, found: str) -> None:
    if not holds:
        raise RuntimeError(f"Tunix did other work than was asked: {found}")


def main(job_path: Path, result_path: Path) -> None:
    request = json.loads(job_path.read_text())
    job = request["job"]
    found = {"generate": generation, "grpo": grpo}[job["measure"]](job, Path(request["directory"]))
    found.facts["versions"] = {name: importlib.metadata.version(name) for name in ("google-tunix", "jax")}
    result_path.write_text(json.dumps(dataclasses.asdict(found)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
