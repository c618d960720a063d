"""How the policy does on held-out questions: greedy completions, their rewards and lengths."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from chestx_jax.data.pipeline import Source, ordered_batches
from chestx_jax.evaluation.accuracy import judge
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import batch_share, gather_shares
from chestx_jax.rewards import RewardMixture, columns_of
from chestx_jax.rollout import Engine, Sampling, prompt_buckets


@dataclass(frozen=True)
class Validation:
    """The questions and what answers them.

    Attributes:
      sources: held-out samples; the accuracy is over all of them.
      engine: as in training; its sampling is replaced by greedy decoding.
    """

    sources: Sequence[Source]
    engine: Engine
    rewards: RewardMixture
    batch_size: int

    def __call__(self, step: int, model: Qwen2VL) -> dict[str, float]:
        """Means over all processes: accuracy, every reward (unweighted), their weighted sum, tokens, and the share
        that ended."""
        engine = replace(self.engine, sampling=Sampling(), group_size=1)
        found: dict[str, list[float]] = {}
        share, shares = batch_share(engine.mesh)
        for source in self.sources:
            batches = ordered_batches(
                source,
                engine.processor,
                buckets=prompt_buckets(engine.processor, source.samples, source.mode, model.attention),
                batch_size=self.batch_size,
                target=False,
                process_index=share,
                process_count=shares,
            )
            for batch in batches:
                done = engine.complete(model, batch, jax.random.key(0), np.arange(len(batch.samples)))
                # also where all of this process's rows are filling: others may wait for it
                rewards = self.rewards(
                    step, [sample.question for sample in done.samples], done.texts, columns_of(done.samples)
                )
                texts = zip(done.samples, done.texts, strict=True)
                cases = judge(done.samples, {sample.id: {"prediction": text} for sample, text in texts})
                columns: dict[str, Iterable[float]] = {
                    "accuracy": [case.correct for case in cases],
                    "reward": rewards.total,
                    "tokens": done.lengths,
                    "ended": done.ended,
                    **{f"reward/{name}": values for name, values in rewards.components.items()},
                }
                for name, values in columns.items():
                    found.setdefault(name, []).extend(float(value) for value in values)
        parts = gather_shares(engine.mesh, found)
        names = dict.fromkeys(name for part in parts for name in part)
        every = {name: np.concatenate([part.get(name, []) for part in parts]) for name in names}
        return {
            name: float(np.nanmean(values)) for name, values in every.items() if not np.isnan(values).all()
        }
