"""The loss of one micro-batch put together, and the sums that its metrics come from."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from chestx_jax.training.grpo import losses
from chestx_jax.training.grpo.losses import Aggregation, Estimator, Mask, Tokens


@dataclass(frozen=True)
class Objective:
    """What is minimised; the defaults are the paper's (verl's GRPO). Hashable: part of the compiled step.

    Attributes:
      ratio: "token" for PPO's, "sequence" for GSPO's.
      clip_low, clip_high, dual_clip: see `losses.clipped_loss`.
      kl: estimator of the divergence from the reference.
      kl_weight: 0 needs no reference.
      entropy_weight: of the entropy, which is rewarded.
      aggregation: see `losses.aggregation_weights`.
      importance_cap: of the truncated importance weights; None for no correction.
    """

    ratio: Literal["token", "sequence"] = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = 3.0
    kl: Estimator = "k3"
    kl_weight: float = 1e-3
    entropy_weight: float = 1e-3
    aggregation: Aggregation = "token_mean"
    importance_cap: float | None = 2.0

    def __post_init__(self) -> None:
        if self.ratio not in ("token", "sequence"):
            raise ValueError(f"ratio: {self.ratio!r} is neither 'token' nor 'sequence'")
        if not 0 < self.clip_low <= 1 or self.clip_high <= 0:
            raise ValueError(
                f"clip_low {self.clip_low}, clip_high {self.clip_high}: must be above 0, low at most 1"
            )
        if self.dual_clip is not None and self.dual_clip <= 1:
            raise ValueError(f"dual_clip: {self.dual_clip} must be above 1")
        if self.importance_cap is not None and self.importance_cap < 1:
            raise ValueError(f"importance_cap: {self.importance_cap} must be at least 1")


@struct.dataclass
class Experience:
    """Responses and what is known of them before an update; the mask says where anything is."""

    mask: Mask
    advantages: Tokens
    old_logprobs: Tokens  # the trainer's own, at the weights that sampled
    sampler_logprobs: Tokens  # those that the sampler reported
    reference_logprobs: Tokens | None  # None when kl_weight is 0
    weights: Tokens  # losses.aggregation_weights over the whole batch


@struct.dataclass
class LossSums:
    """Sums and maxima over tokens; micro-batches add up exactly. `means` makes metrics of them."""

    tokens: Float[Array, ""]
    ratio: Float[Array, ""]
    ratio_max: Float[Array, ""]
    clipped: Float[Array, ""]
    dual_clipped: Float[Array, ""]
    entropy: Float[Array, ""]
    kl: Float[Array, ""]  # policy from reference
    policy_kl: Float[Array, ""]  # policy from itself when it sampled, k3
    sampler_gap: Float[Array, ""]  # |trainer - sampler| log-probability
    sampler_gap_max: Float[Array, ""]

    @classmethod
    def zero(cls) -> "LossSums":
        """The sums over no token."""
        return cls(*(jnp.zeros(()) for _ in cls.__dataclass_fields__))

    def __add__(self, other: "LossSums") -> "LossSums":
        ours, theirs = vars(self), vars(other)
        join = {name: jnp.maximum if name.endswith("_max") else jnp.add for name in ours}
        return LossSums(**{name: join[name](ours[name], theirs[name]) for name in ours})

    def means(self) -> dict[str, Float[Array, ""]]:
        """By name: means over tokens, and the maxima as they are."""
        count = jnp.maximum(self.tokens, 1)
        return {
            name: value if name.endswith("_max") else value / count
            for name, value in vars(self).items()
            if name != "tokens"
        }


def grpo_loss(
    objective: Objective, logprobs: Tokens, entropy: Tokens, experience: Experience
) -> tuple[Float[Array, ""], LossSums]:
    """agg(policy loss) - entropy_weight agg(entropy) + kl_weight agg(KL), and what there is to see.

    Args:
      logprobs: of the response's tokens under the policy.
      entropy: of the distributions they were drawn from.

    Raises:
      ValueError: kl_weight is not 0 and there are no reference log-probabilities.
    """
    mask, old = experience.mask, experience.old_logprobs
    ratio_of = losses.token_ratio if objective.ratio == "token" else losses.sequence_ratio
    ratio = ratio_of(logprobs, old, mask)
    clip = (experience.advantages, mask, objective.clip_low, objective.clip_high, objective.dual_clip)
    policy = losses.clipped_loss(ratio, *clip)
    if objective.importance_cap is not None:
        policy = policy * losses.importance_weights(
            old, experience.sampler_logprobs, mask, objective.importance_cap
        )
    total = losses.weighted_sum(policy, experience.weights)
    entropy = losses.masked(entropy, mask)
    if objective.entropy_weight:
        total = total - objective.entropy_weight * losses.weighted_sum(entropy, experience.weights)
    kl = jnp.zeros_like(policy)
    if objective.kl_weight:
        if experience.reference_logprobs is None:
            raise ValueError("reference_logprobs: needed when kl_weight is not 0")
        kl = losses.kl_estimate(logprobs, experience.reference_logprobs, mask, objective.kl)
        total = total + objective.kl_weight * losses.weighted_sum(kl, experience.weights)
    return total, jax.lax.stop_gradient(_sums(ratio, clip, entropy, kl, logprobs, experience))


def _sums(
    ratio: Tokens, clip: tuple, entropy: Tokens, kl: Tokens, logprobs: Tokens, experience: Experience
) -> LossSums:
    mask, old = experience.mask, experience.old_logprobs
    clipped, dual_clipped = losses.clip_fractions(ratio, *clip)
    gap = jnp.abs(losses.masked(old, mask) - losses.masked(experience.sampler_logprobs, mask))
    ratio = losses.masked(ratio, mask)
    return LossSums(
        tokens=mask.sum().astype(jnp.float32),
        ratio=ratio.sum(),
        ratio_max=ratio.max(initial=0),
        clipped=clipped.sum(),
        dual_clipped=dual_clipped.sum(),
        entropy=entropy.sum(),
        kl=kl.sum(),
        policy_kl=losses.kl_estimate(old, logprobs, mask, "k3").sum(),
        sampler_gap=gap.sum(),
        sampler_gap_max=gap.max(initial=0),
    )
