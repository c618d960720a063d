"""The paper's claim under test: the same model, the same steps, other rewards."""

from chestx_jax.training.ablation.run import run

__all__ = ["run"]
