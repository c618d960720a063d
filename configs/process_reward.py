"""The process reward model: a verdict on every step of a reasoning.

    python -m launch.process_reward --config=configs/process_reward.py:tiny --workdir=runs/judge \\
        --config.model.pretrained=runs/tiny --config.data.bench=runs/tiny/bench
    python -m launch.process_reward --config=configs/process_reward.py:openi --workdir=runs/judge_openi \\
        --config.model.pretrained=demo_openi/sft --config.data.bench=demo_openi/bench
    python -m launch.process_reward --config=configs/process_reward.py:qwen2_vl_7b --workdir=runs/judge7b \\
        --config.model.pretrained=runs/sft7b --config.data.bench=DIR

Variants: `tiny` (phantoms, after `configs/sft.py:tiny`), `openi` (real X-rays and reports, after
`launch.demo --source=openi`), `qwen2_vl_2b` and `qwen2_vl_7b`. `model.pretrained` takes a Hugging Face directory or
the workdir of a run. Adapters and head learn by default, in the small ones the whole model
(`--config.model.lora.rank=0`).
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("tiny", "openi", "qwen2_vl_2b", "qwen2_vl_7b")


def get_config(variant: str) -> ConfigDict:
    """The recipe called `variant`; any leaf can be overridden with --config.a.b=value."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/process_reward.py has no variant {variant!r}; it has {', '.join(VARIANTS)}"
        )
    config = ConfigDict(
        dict(
            model=common.model(),
            data=common.data(),
            optimizer=common.optimizer(peak=1e-4),
            mesh=common.mesh(),
            steps=1000,
            batch_size=128,  # samples a step, over all devices
            accumulation=1,  # micro-batches a step
            copies=2,  # versions of each sample, with other false steps each
            max_steps=32,  # of a reasoning
            eval_samples=256,  # of each validation file, while training; at the end all
            seed=0,
            save_every=100,
            eval_every=100,
            **common.life(),
        )
    )
    config.model.lora.update(rank=16, alpha=32.0)
    {"tiny": _tiny, "openi": _openi, "qwen2_vl_2b": _paper, "qwen2_vl_7b": _paper}[variant](config)
    if variant.startswith("qwen2_vl"):
        config.model.arch = variant  # for launch.plan, which needs no weights; a run takes `pretrained`
    return config


def _tiny(config: ConfigDict) -> None:
    config.model.update(remat="most")
    config.model.lora.rank = 0  # so small a model must learn to see more, which adapters do not let it
    config.data.update(
        phantom_studies=8000,
        image_size=112,
        train=tuple((f"{task}/train.jsonl", "reason", weight) for task, weight in JUDGED_MIXTURE),
        validation=(("multiple/validation.jsonl", "reason"), ("temporal/validation.jsonl", "reason")),
        buckets=((192, 64), (320, 128)),
    )
    config.optimizer.update(peak=1e-3, warmup=0.05, final=0.05, b2=0.98)
    config.update(steps=1000, batch_size=32, max_steps=16, save_every=200, eval_every=200)


# more of the two images that changes are judged by than the policy sees
JUDGED_MIXTURE = (("binary", 0.45), ("single", 0.1), ("multiple", 0.1), ("anomaly", 0.1), ("temporal", 0.25))


def _openi(config: ConfigDict) -> None:
    config.model.update(remat="most")
    config.model.lora.rank = 0
    config.data.update(
        image_size=112,
        train=tuple((f"{task}/train.jsonl", "reason", weight) for task, weight in OPENI_MIXTURE),
        validation=tuple((f"{task}/validation.jsonl", "reason") for task, _ in OPENI_MIXTURE),
        buckets=((320, 128), (704, 320)),
    )
    config.optimizer.update(peak=1e-3, warmup=0.05, final=0.05, b2=0.98)
    config.update(steps=400, batch_size=32, max_steps=32, save_every=100, eval_every=100)


# about as many as Open-i has of each
OPENI_MIXTURE = (("binary", 0.45), ("single", 0.2), ("multiple", 0.1), ("anomaly", 0.25))


def _paper(config: ConfigDict) -> None:
    config.model.update(dtype="bfloat16", remat="mlp")
    config.data.update(
        train=tuple(
            (f"{task}/train.jsonl", "reason", 1.0) for task in ("binary", "single", "multiple", "temporal")
        ),
        validation=(("single/validation.jsonl", "reason"),),
        buckets=((1024, 1024), (1536, 2048), (2048, 3072)),
        read_threads=16,
    )
    config.update(max_steps=64)
