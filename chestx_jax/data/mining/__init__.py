"""Report -> reasoning: mined by rules or by a language model, verified step by step against the report.

    mined = mine_rules(sample, seed=0)          offline, deterministic
    verify(mined).ok                            or .reasons

    for one in mine_llm(samples, Endpoint(...), Path("mining")):     one.sample, one.status, one.reasons
    estimate_llm(samples, Endpoint(...), Path("mining")).summary(prompt_price=2.5, completion_price=10)

Importing this package needs no `llm` extra; asking does.
"""

from chestx_jax.data.mining.estimate import MiningEstimate, estimate_llm
from chestx_jax.data.mining.llm import Mined, mine_llm
from chestx_jax.data.mining.rules import mine_rules
from chestx_jax.data.mining.sources import MiningError
from chestx_jax.data.mining.verification import Verification, verify

__all__ = [
    "Mined",
    "MiningError",
    "MiningEstimate",
    "Verification",
    "estimate_llm",
    "mine_llm",
    "mine_rules",
    "verify",
]
