"""Supervised fine-tuning on answers and reasoning.

    python -m launch.sft --config=configs/sft.py:tiny --workdir=runs/tiny
    python -m launch.sft --config=configs/sft.py:openi --workdir=runs/openi \\
        --config.data.bench=DIR --config.model.processor=DIR
    python -m launch.sft --config=configs/sft.py:qwen2_vl_7b --workdir=runs/sft7b \\
        --config.model.pretrained=DIR --config.data.bench=DIR

Variants: `tiny` (phantoms, a model of 2 M parameters from scratch, a laptop), `openi` (real X-rays and
questions, a small model from scratch; benchmarks/long/word_for_word.py has it learn 32 of them by heart),
`qwen2_vl_2b` and `qwen2_vl_7b` (the paper's settings, arXiv 2504.20930).
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("tiny", "openi", "qwen2_vl_2b", "qwen2_vl_7b")


def get_config(variant: str) -> ConfigDict:
    """The recipe called `variant`; any leaf can be overridden with --config.a.b=value."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/sft.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = ConfigDict(
        dict(
            model=common.model(),
            data=common.data(),
            optimizer=common.optimizer(),
            mesh=common.mesh(),
            steps=1000,
            batch_size=128,  # samples a step, over all devices
            accumulation=1,  # micro-batches a step
            loss_chunk=256,  # positions whose logits exist at a time
            seed=0,
            save_every=100,
            eval_every=100,
            **common.life(),
        )
    )
    {"tiny": _tiny, "openi": _openi, "qwen2_vl_2b": _paper, "qwen2_vl_7b": _paper}[variant](config)
    if variant.startswith("qwen2_vl"):
        config.model.arch = (
            variant  # for launch.plan, which needs sizes and no weights; a run takes `pretrained`
        )
    return config


def _tiny(config: ConfigDict) -> None:
    config.model.update(arch="tiny", remat="most")
    config.data.update(
        phantom_studies=8000,
        image_size=112,
        train=tuple((f"{task}/train.jsonl", "reason", weight) for task, weight in TINY_MIXTURE),
        validation=(("binary/validation.jsonl", "reason"),),
        buckets=((192, 64), (256, 128)),
    )
    config.optimizer.update(peak=2e-3, warmup=0.05, final=0.05, b2=0.98, weight_decay=0.01)
    config.update(steps=1200, batch_size=32, loss_chunk=32, save_every=200, eval_every=200)


TINY_MIXTURE = (("binary", 0.6), ("single", 0.1), ("multiple", 0.1), ("anomaly", 0.1), ("temporal", 0.1))


def _openi(config: ConfigDict) -> None:
    config.model.update(arch="tiny", remat="most")
    config.data.update(
        image_size=112,
        train=(("openi_samples.jsonl", "reason", 1.0),),
        validation=(("openi_samples.jsonl", "reason"),),
        buckets=((512, 192), (1024, 192)),
    )
    config.optimizer.update(peak=2e-3, warmup=0.05, b2=0.98)
    config.update(steps=600, batch_size=4, loss_chunk=32, save_every=50, eval_every=100)


def _paper(config: ConfigDict) -> None:
    """arXiv 2504.20930, section 4 and its released recipe: answer-only 0.2 to 0.3, reasoning 0.1, temporal 0.05."""
    config.model.update(dtype="bfloat16", remat="mlp")
    config.data.update(
        train=(
            ("binary/train.jsonl", "answer", 0.3),
            ("single/train.jsonl", "answer", 0.2),
            ("multiple/train.jsonl", "answer", 0.2),
            ("binary/train.jsonl", "reason", 0.1),
            ("single/train.jsonl", "reason", 0.1),
            ("multiple/train.jsonl", "reason", 0.1),
            ("temporal/train.jsonl", "reason", 0.05),
        ),
        validation=(("single/validation.jsonl", "reason"),),
        buckets=((1024, 1024), (1536, 2048), (2048, 3072)),
        read_threads=16,
    )
    config.update(steps=3000, batch_size=128)
