"""Report -> reasoning: mined by rules or by a language model, verified step by step against the report."""

from chestx_jax.data.mining.rules import mine_rules
from chestx_jax.data.mining.verification import Verification, verify

__all__ = ["Verification", "mine_rules", "verify"]
