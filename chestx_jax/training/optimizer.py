"""AdamW with warm-up and a cosine, as a pure optax chain."""

import optax
from ml_collections import ConfigDict

from chestx_jax.training.guard import guarded


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up over `warmup` of the run, then a cosine to `final` x `peak` (or constant).

    Args:
      config: `peak`, `warmup` (a fraction of `steps`), `schedule` ("cosine" or "constant") and `final`.
      steps: optimizer steps of the whole run.

    Raises:
      ValueError: on an unknown schedule.
    """
    warmup = round(config.warmup * steps)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.peak, max(steps - warmup, 1), alpha=config.final)
    elif config.schedule == "constant":
        after = optax.constant_schedule(config.peak)
    else:
        raise ValueError(
            f"config.optimizer.schedule is {config.schedule!r}; it can be 'cosine' or 'constant'"
        )
    if not warmup:
        return after
    # From peak / warmup, not from 0: the first update of a run should not be thrown away.
    rise = optax.linear_schedule(config.peak / warmup, config.peak, warmup - 1)
    return optax.join_schedules([rise, after], [warmup])


def make_optimizer(config: ConfigDict, steps: int, spike: float = 0.0) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW; weight decay on matrices only (kernels and embeddings); an update that must
    not be made is skipped (`guard.guarded`).

    Args:
      config: the learning-rate fields above, `b1`, `b2`, `eps`, `weight_decay`, `clip` (global norm), `mu_dtype` (of
        the first moment; the second is always as precise as the parameters).
      steps: optimizer steps of the whole run.
      spike: see `guard.guarded`.

    Raises:
      ValueError: on an unknown schedule, or a `mu_dtype` that is not for moments.
    """
    if config.mu_dtype not in ("float32", "bfloat16"):
        raise ValueError(
            f"config.optimizer.mu_dtype is {config.mu_dtype!r}; it can be 'float32' or 'bfloat16'"
        )
    adamw = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config, steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            mu_dtype=config.mu_dtype,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        ),
    )
    return guarded(adamw, spike)


def decay_mask(params):
    """True for kernels, embeddings and adapters; False for norms' scales and every bias (whatever their rank:
    stacked layers give a bias two dimensions)."""
    return {
        key: decay_mask(value) if isinstance(value, dict) else key not in ("scale", "bias")
        for key, value in params.items()
    }
