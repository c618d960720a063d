"""Reinforcement learning that rewards the reasoning (GRPO).

    python -m launch.grpo --config=configs/grpo.py:tiny --workdir=runs/grpo --config.model.pretrained=runs/tiny
    python -m launch.grpo --config=configs/grpo.py:openi --workdir=runs/grpo_openi \\
        --config.model.pretrained=runs/openi --config.data.bench=DIR
    python -m launch.grpo --config=configs/grpo.py:qwen2_vl_7b --workdir=runs/grpo7b \\
        --config.model.pretrained=runs/sft7b --config.data.bench=DIR

Variants: `tiny` (phantoms, after `configs/sft.py:tiny`), `openi` (real X-rays and questions, a small model),
`qwen2_vl_2b` and `qwen2_vl_7b` (the paper's settings, arXiv 2504.20930). `model.pretrained` takes a Hugging Face
directory or the workdir of a run.
"""

from ml_collections import ConfigDict

from configs import common
from configs.sft import TINY_MIXTURE

VARIANTS = ("tiny", "openi", "qwen2_vl_2b", "qwen2_vl_7b")


def get_config(variant: str) -> ConfigDict:
    """The recipe called `variant`; any leaf can be overridden with --config.a.b=value."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/grpo.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = ConfigDict(
        dict(
            model=common.model(),
            data=common.data(),
            optimizer=common.optimizer(peak=5e-7, schedule="constant", warmup=0.0),
            mesh=common.mesh(),
            rollout=dict(
                group_size=8,  # completions a prompt
                max_new_tokens=2048,
                temperature=1.0,
                top_k=0,  # 0 = all
                top_p=1.0,  # 1 = all
                min_p=0.0,  # 0 = all
                tensor=1,  # devices that share the weights while they write; 0 = as in training (slow with fsdp)
                refills=0,  # further draws a step to replace groups without spread (DAPO's dynamic sampling)
                overlong="keep",  # what was cut at max_new_tokens: keep, drop (no loss), shape (a penalty)
                overlong_buffer=256,  # "shape": tokens before the limit over which the penalty rises to 1
            ),
            rewards=dict(
                format=dict(function="format", weight=1.0, clip=(0.0, 1.0), schedule=()),
                outcome=dict(function="outcome", weight=1.0, clip=(0.0, 1.0), schedule=()),
                process=dict(function="process", weight=1.0, clip=(0.0, 1.0), schedule=()),
            ),
            advantage=dict(
                estimator="group",  # group, dr_grpo, rloo, gdpo
                credit="scalar",  # scalar: one number a completion; step: to the step that earned it
            ),
            objective=dict(
                ratio="token",  # token, sequence (GSPO)
                clip_low=0.2,
                clip_high=0.2,
                dual_clip=3.0,
                kl="k3",
                kl_weight=1e-3,  # 0 = no reference model
                entropy_weight=1e-3,
                aggregation="token_mean",
                importance_cap=2.0,  # of the truncated importance weights
            ),
            epochs=1,  # passes over a rollout
            minibatches=1,  # updates a pass
            accumulation=1,  # micro-batches an update
            loss_chunk=256,  # response positions whose logits exist at a time
            steps=150,  # rollouts
            batch_size=256,  # prompts a step, over all devices
            validation_batch=64,
            seed=0,
            save_every=10,
            eval_every=10,
            table_every=10,  # steps between pages of completions
            table_prompts=8,  # groups on such a page
            **common.life(),
        )
    )
    {"tiny": _tiny, "openi": _openi, "qwen2_vl_2b": _paper, "qwen2_vl_7b": _paper}[variant](config)
    if variant.startswith("qwen2_vl"):
        # as many as there are key/value heads
        config.rollout.tensor = {"qwen2_vl_2b": 2, "qwen2_vl_7b": 4}[variant]
        config.model.arch = variant  # for launch.plan, which needs no weights; a run takes `pretrained`
    return config


def _tiny(config: ConfigDict) -> None:
    config.model.remat = "most"
    config.data.update(
        phantom_studies=3000,
        image_size=112,
        train=tuple(
            (f"{task}/train.jsonl", "reason", weight) for task, weight in TINY_MIXTURE if task != "temporal"
        ),
        validation=tuple(
            (f"{task}/validation.jsonl", "reason") for task, _ in TINY_MIXTURE if task != "temporal"
        ),
        validation_limit=48,
        buckets=((160, 64),),
    )
    config.rollout.update(max_new_tokens=128)
    config.optimizer.update(peak=1e-4)
    config.update(steps=40, batch_size=16, save_every=10, eval_every=20, table_every=20, validation_batch=48)


def _openi(config: ConfigDict) -> None:
    config.model.remat = "most"
    config.data.update(
        image_size=112,
        train=(("openi_samples.jsonl", "reason", 1.0),),
        validation=(("openi_samples.jsonl", "reason"),),
        limit=32,
        buckets=((256, 192),),
    )
    config.rollout.update(max_new_tokens=256)
    config.optimizer.update(peak=1e-4)
    config.loss_chunk = 16  # of 32 completions and 152,000 words: 0.3 GB of logits at a time
    config.update(steps=30, batch_size=4, save_every=10, eval_every=15, table_every=10, validation_batch=16)


def _paper(config: ConfigDict) -> None:
    """arXiv 2504.20930, section 4: 256 prompts x 8, lr 5e-7, KL and entropy 0.001, 2048 + 2048 tokens.

    Four micro-batches: one prompt with its eight completions on each of 64 chips at a time.
    """
    config.accumulation = 4
    config.model.update(dtype="bfloat16", remat="minimal")
    config.data.update(
        train=tuple(
            (f"{task}/train.jsonl", "reason", 1.0) for task in ("binary", "single", "multiple", "temporal")
        ),
        validation=(("single/validation.jsonl", "reason"),),
        buckets=((2048, 3072),),
        read_threads=16,
    )
