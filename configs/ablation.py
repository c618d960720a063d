"""Does it help to reward the reasoning? From one fine-tuned model, several rewards, several seeds, equal steps.

    python -m launch.ablation --config=configs/ablation.py:tiny --workdir=runs/ablation

Variants: `tiny` (phantoms, a laptop: an hour on two busy cores, once the start is fine-tuned and the judge trained),
`qwen2_vl_7b` (the paper's settings; needs --config.sft.model.pretrained=DIR and --config.sft.data.bench=DIR).
"""

from ml_collections import ConfigDict

from configs import grpo, process_reward, sft

VARIANTS = ("tiny", "qwen2_vl_7b")


def get_config(variant: str) -> ConfigDict:
    """The recipe called `variant`; any leaf can be overridden, e.g. --config.grpo.steps=20."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/ablation.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = ConfigDict(
        dict(
            sft=sft.get_config(variant),  # the model that every arm starts from
            judge=process_reward.get_config(variant),  # the learned reward
            grpo=grpo.get_config(
                variant
            ),  # an arm changes the weights of its rewards, the credit and the seed
            sft_run="",  # workdir of a finished launch.sft to start from; "" = made here
            arms=dict(
                outcome=dict(process=0.0, learned=0.0, credit="scalar"),
                scalar=dict(process=1.0, learned=0.0, credit="scalar"),
                step=dict(process=1.0, learned=0.0, credit="step"),
                learned=dict(process=0.0, learned=1.0, credit="step"),
            ),
            seeds=(0, 1, 2),
            test=(("binary", 150), ("single", 90), ("multiple", 150), ("anomaly", 150)),  # held-out questions
            max_new_tokens=192,  # of an answer to them
            test_batch=64,  # questions at a time
        )
    )
    if variant == "tiny":
        config.grpo.optimizer.update(schedule="cosine", warmup=0.05, final=0.1)
        config.grpo.update(steps=60, save_every=20, eval_every=60, table_every=60)
    else:
        config.max_new_tokens = 2048
    return config
