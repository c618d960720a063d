"""Balance over a collection: as many binary questions answered Yes as No, label by label."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from chestx_jax.data.schema import Sample


def balance_binary(samples: Sequence[Sample], seed: int = 0) -> list[Sample]:
    """Drops binary samples until every label has as many A as B; all other samples stay, and so does the
    order.

    Which ones stay is settled by a hash of seed and id, so that a few more studies change few of them.
    """
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.task == "binary":
            groups[sample.question, sample.answer].append(sample)
    kept: set[str] = set()
    for question in {question for question, _ in groups}:
        count = min(len(groups[question, answer]) for answer in ("A", "B"))
        for answer in ("A", "B"):
            ranked = sorted(groups[question, answer], key=lambda sample: _rank(seed, sample.id))
            kept.update(sample.id for sample in ranked[:count])
    return [sample for sample in samples if sample.task != "binary" or sample.id in kept]


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}|{name}".encode()).digest()
