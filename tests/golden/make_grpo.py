"""Makes grpo.npz: losses, gradients and advantages of verl 0.9.1 and TRL 1.16.0, in float64. Needs torch and pip.

The two packages are downloaded without what they depend on; the few functions compared are taken out of their
source and run as they are. Inputs are stored beside the outputs.

python -m tests.golden.make_grpo
"""

import __future__

import ast
import math
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

PACKAGES = {"verl": "0.9.1", "trl": "1.16.0"}
ROWS, LENGTH, GROUP = 8, 12, 4
CLIPS = {"clip": (0.2, 0.2), "clip_higher": (0.2, 0.28)}
VERL_AGGREGATIONS = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm")
HORIZON = 16  # Dr. GRPO's constant

Arrays = dict[str, np.ndarray]


def sources() -> dict[str, str]:
    """Text of the modules that hold the functions."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = [f"{name}=={version}" for name, version in PACKAGES.items()]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *wanted]
        subprocess.run(command, check=True)
        files = {
            "verl": ("verl", "verl/trainer/ppo/core_algos.py"),
            "verl_functional": ("verl", "verl/utils/torch_functional.py"),
            "trl": ("trl", "trl/trainer/grpo_trainer.py"),
        }
        texts = {}
        for name, (package, path) in files.items():
            (wheel,) = Path(folder).glob(f"{package}-{PACKAGES[package]}-*.whl")
            texts[name] = zipfile.ZipFile(wheel).read(path).decode()
        return texts


def load(source: str, names: tuple[str, ...], **globals: Any) -> SimpleNamespace:
    """The named functions (or methods) of a module without the rest of it, decorators left off."""
    space = {"torch": torch, "np": np, "math": math, "defaultdict": defaultdict, **globals}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            node.decorator_list = []
            module = ast.Module([node], type_ignores=[])
            # annotations stay text: the types that they name are not there
            exec(compile(module, "<golden>", "exec", flags=__future__.annotations.compiler_flag), space)
    return SimpleNamespace(**{name: space[name] for name in names})


class ActorConfig(SimpleNamespace):
    """What verl's losses read of its own."""

    def get(self, name: str, default: Any) -> Any:
        return vars(self).get(name, default)


class AlgoConfig(dict):
    """Likewise."""


def inputs(seed: int, masked_row: bool) -> Arrays:
    """Ratios from 0.4 to beyond 3, with both signs of advantage; KL below and beyond its clamp."""
    rng = np.random.default_rng(seed)
    shape = (ROWS, LENGTH)
    logprobs = -rng.exponential(1.5, shape)
    old = logprobs + rng.normal(0, 0.3, shape)
    reference = logprobs + rng.normal(0, 0.5, shape)
    advantages = np.repeat(rng.normal(0, 1, (ROWS, 1)), LENGTH, axis=1)
    advantages[1], advantages[2] = -1.3, 1.1
    old[1, 2], old[2, 2] = logprobs[1, 2] - 1.5, logprobs[2, 2] - 1.5  # ratio 4.5, A < 0 and A > 0
    old[1, 3], old[2, 3] = logprobs[1, 3] + 25, logprobs[2, 3] - 25  # beyond +-20
    lengths = rng.integers(4, LENGTH + 1, ROWS)
    mask = np.arange(LENGTH) < lengths[:, None]
    if masked_row:
        mask[5] = False
        reference[1, 1] = logprobs[1, 1] + 3.0  # exp(3) - 3 - 1 = 16
        reference[3, 0] = logprobs[3, 0] + 30.0
    return {
        "logprobs": logprobs,
        "old": old,
        "reference": reference,
        "advantages": advantages,
        "mask": mask,
        "importance": rng.uniform(0.5, 2.0, shape),
    }


def tensors(arrays: Arrays) -> SimpleNamespace:
    converted = {name: torch.tensor(a, dtype=torch.float64) for name, a in arrays.items()}
    converted["logprobs"].requires_grad_()
    return SimpleNamespace(**converted)


def verl_losses(verl: SimpleNamespace, arrays: Arrays) -> Arrays:
    out: Arrays = {}
    batch = {"loss_scale_factor": HORIZON}
    for clip, (low, high) in CLIPS.items():
        config = ActorConfig(clip_ratio=low, clip_ratio_low=low, clip_ratio_high=high, clip_ratio_c=3.0)
        config.global_batch_info = batch
        for kind, loss in (
            ("vanilla", verl.compute_policy_loss_vanilla),
            ("gspo", verl.compute_policy_loss_gspo),
        ):
            for mode in VERL_AGGREGATIONS:
                x = tensors(arrays)
                value, metrics = loss(x.old, x.logprobs, x.advantages, x.mask, mode, config)
                record(out, f"{kind}/{clip}/{mode}", value, x.logprobs)
            out[f"{kind}/{clip}/clipped"] = np.array(metrics["actor/pg_clipfrac"])
            out[f"{kind}/{clip}/dual_clipped"] = np.array(metrics["actor/pg_clipfrac_lower"])
        x = tensors(arrays)
        value, _ = verl.compute_policy_loss_vanilla(
            x.old, x.logprobs, x.advantages, x.mask, "token-mean", config, x.importance
        )
        record(out, f"importance/{clip}", value, x.logprobs)
    for estimator in ("k1", "k2", "k3"):
        x = tensors(arrays)
        value = verl.agg_loss(
            verl.kl_penalty_forward(x.logprobs, x.reference, estimator), x.mask, "token-mean"
        )
        record(out, estimator, value, x.logprobs)
    return out


def paper_loss(verl: SimpleNamespace, arrays: Arrays, logits: np.ndarray, targets: np.ndarray) -> Arrays:
    """Policy, entropy and KL as verl's actor adds them up; gradient with respect to the logits."""
    out: Arrays = {}
    x = tensors(arrays)
    scores = torch.tensor(logits, requires_grad=True)
    logprobs = torch.log_softmax(scores, -1).gather(-1, torch.tensor(targets)[..., None])[..., 0]
    config = ActorConfig(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.2, clip_ratio_c=3.0)
    config.global_batch_info = {}
    value, _ = verl.compute_policy_loss_vanilla(x.old, logprobs, x.advantages, x.mask, "token-mean", config)
    value = value - 1e-3 * verl.compute_entropy_loss(scores, x.mask)
    kl = verl.agg_loss(verl.kl_penalty_forward(logprobs, x.reference, "low_var_kl"), x.mask, "token-mean")
    record(out, "total", value + 1e-3 * kl, scores)
    return out


def trl_losses(trl: SimpleNamespace, arrays: Arrays) -> Arrays:
    out: Arrays = {}
    for kind, level in (("bnpo", "token"), ("grpo", "token"), ("dr_grpo", "token"), ("grpo", "sequence")):
        x = tensors(arrays)
        trainer = trl_trainer(kind, level, x.logprobs)
        batch = {
            "prompt_ids": torch.zeros(ROWS, 1),
            "prompt_mask": torch.zeros(ROWS, 1),
            "completion_ids": torch.zeros(ROWS, LENGTH),
            "completion_mask": x.mask,
            "advantages": x.advantages[:, 0],
            "old_per_token_logps": x.old,
            "ref_per_token_logps": x.reference,
        }
        record(out, f"{kind}/{level}", trl._compute_loss(trainer, None, batch), x.logprobs)
    return out


def trl_trainer(kind: str, level: str, logprobs: torch.Tensor) -> Any:
    """What `GRPOTrainer._compute_loss` reads of its trainer: delta 3, no bias correction, beta 1e-3."""
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=1e-3,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=3.0 if level == "token" else None),
        loss_type=kind,
        epsilon_low=0.2,
        epsilon_high=0.28,
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=HORIZON,
        _entropy_bonus_enabled=False,
        accelerator=SimpleNamespace(reduce=lambda x, reduction: x, gather=lambda x: x),
        _metrics={"train": defaultdict(list)},
    )


def record(out: Arrays, name: str, value: torch.Tensor, at: torch.Tensor) -> None:
    out[f"{name}/loss"] = value.detach().numpy()
    out[f"{name}/gradient"] = torch.autograd.grad(value, at)[0].numpy()


def verl_advantages(verl: SimpleNamespace) -> Arrays:
    """Four groups of four, one of them without spread, and groups of one."""
    rng = np.random.default_rng(5)
    components = rng.integers(0, 65, (16, 3)) / 64  # exact in float32, which verl's GDPO goes through
    components[4:8] = components[4]
    weights = np.array([1.0, 0.5, 0.25])
    out = {"components": components, "component_weights": weights}
    groups = {"fours": np.repeat(np.arange(4), GROUP), "ones": np.arange(16)}
    one_token = torch.ones(16, 1, dtype=torch.float64)
    for name, index in groups.items():
        rewards = torch.tensor(components @ weights)[:, None]
        grpo = verl.compute_grpo_outcome_advantage
        out[f"{name}/group"] = grpo(rewards.clone(), one_token, index)[0][:, 0].numpy()
        out[f"{name}/dr_grpo"] = grpo(rewards.clone(), one_token, index, norm_adv_by_std_in_grpo=False)[0][
            :, 0
        ].numpy()
        out[f"{name}/rloo"] = verl.compute_rloo_outcome_advantage(rewards.clone(), one_token, index)[0][
            :, 0
        ].numpy()
    keys = ["a", "b", "c"]
    out["fours/gdpo"] = verl.compute_gdpo_outcome_advantage(
        one_token.clone(),
        one_token,
        groups["fours"],
        config=AlgoConfig(gdpo_reward_keys=keys, gdpo_reward_weights=weights),
        non_tensor_batch=dict(zip(keys, components.T, strict=True)),
        batch={"prompts": torch.zeros(16, 1), "attention_mask": torch.ones(16, 2, dtype=torch.int64)},
    )[0][:, 0].numpy()
    return out


def main() -> None:
    torch.set_default_dtype(torch.float64)
    texts = sources()
    functional = load(
        texts["verl_functional"],
        ("entropy_from_logits", "masked_sum", "masked_mean", "masked_var", "masked_whiten"),
    )
    verl = load(
        texts["verl"],
        (
            "agg_loss",
            "compute_policy_loss_vanilla",
            "compute_policy_loss_gspo",
            "compute_entropy_loss",
            "kl_penalty_forward",
            "compute_grpo_outcome_advantage",
            "compute_rloo_outcome_advantage",
            "compute_gdpo_outcome_advantage",
        ),
        verl_F=functional,
        ActorConfig=ActorConfig,
        AlgoConfig=AlgoConfig,
    )
    largest = {"nanmin": torch.min, "nanmax": torch.max}  # of metrics that nobody reads here
    trl = load(texts["trl"], ("_compute_loss",), **largest)
    rng = np.random.default_rng(9)
    logits, targets = rng.normal(0, 1.5, (ROWS, LENGTH, 7)), rng.integers(0, 7, (ROWS, LENGTH))
    hard, plain = inputs(0, masked_row=True), inputs(1, masked_row=False)
    groups: dict[str, Arrays] = {
        "hard": hard,
        "plain": plain,
        "entropy": {"logits": logits, "targets": targets},
        "verl": verl_losses(verl, hard),
        "verl_plain": paper_loss(verl, plain, logits, targets),
        "trl": trl_losses(trl, plain),
        "advantages": verl_advantages(verl),
    }
    arrays = {f"{group}/{name}": a for group, named in groups.items() for name, a in named.items()}
    path = Path(__file__).with_name("grpo.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
