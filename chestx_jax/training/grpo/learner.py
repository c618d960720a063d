"""GRPO for images: complete prompts, reward the completions, learn from what did better than its group.

A step: the weights move to where they write (`rollout.layout`); P prompts are read once each and completed G times
(`rollout.Engine`); the completions are rewarded on
the host while the device computes what log-probabilities the loss needs besides its own; rewards become
advantages token by token (`credit`); `epochs` x `minibatches` jitted updates follow (`update`). The step's key is
`fold_in(seed, step)`, so a resumed run is the same run, bit for bit.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from chestx_jax.data.pipeline import Batch, Pipeline
from chestx_jax.models.qwen2_vl import Qwen2VL
from chestx_jax.parallel import batch_share, gather_shares, is_first, put_rows
from chestx_jax.rewards import Rewards, columns_of
from chestx_jax.rollout import Completion, Engine, TokenSpans
from chestx_jax.training.grpo.advantages import zero_spread
from chestx_jax.training.grpo.credit import token_advantages
from chestx_jax.training.grpo.losses import overlong_penalty
from chestx_jax.training.grpo.objective import Experience
from chestx_jax.training.grpo.refills import Group, choose, first_useful, rows_of
from chestx_jax.training.grpo.settings import Settings
from chestx_jax.training.grpo.table import write_table
from chestx_jax.training.grpo.update import Prompts, Score, Update
from chestx_jax.training.state import Params, TrainState, model_from


@dataclass
class Learner:
    """The train step of the loop: (state, prompts) -> (state, metrics).

    Attributes:
      batches: where further prompts come from when groups without spread are replaced.
      mesh: where training happens; the engine may write on another one over the same devices.
      reference: what the KL divergence is taken from, the parameters that learn as they were at the start; None
        where the objective has no use for it.
      step: updates of the policy so far; part of every key.
    """

    config: ConfigDict
    settings: Settings
    graphdef: nnx.GraphDef
    engine: Engine
    spans: TokenSpans
    mesh: Mesh
    batches: Pipeline
    score: Score
    update: Update
    reference: Params | None
    workdir: Path
    step: int

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """One rollout and the updates from it."""
        self.step += 1
        began = time.monotonic()
        model = self.engine.take(model_from(self.graphdef, state.trainable, state.frozen), self.mesh)
        jax.block_until_ready(nnx.state(model))
        moved = time.monotonic()
        group, drawn = self._collect(state, model, batch)
        del model  # the updates need the room
        completion, size = group.completion, self.engine.group_size
        rolled = time.monotonic()
        own = (group.rewards, completion.lengths, completion.ended)
        scored, lengths, ended = zip(*gather_shares(self.mesh, own), strict=True)
        rewards = Rewards.joined(scored)
        share, _ = batch_share(self.mesh)
        advantages = token_advantages(
            rewards,
            completion,
            self.spans,
            group_size=size,
            estimator=self.config.advantage.estimator,
            credit=self.config.advantage.credit,
            first=share * len(completion),
        )
        sizes = gather_shares(self.mesh, (np.abs(advantages[completion.mask]).sum(), completion.mask.sum()))
        if self.step % self.config.table_every == 0 and is_first():
            path = self.workdir / "completions" / f"step-{self.step:06d}.html"
            write_table(
                path,
                self.step,
                completion,
                group.rewards,
                advantages,
                group_size=size,
                prompts=self.config.table_prompts,
            )
        state, metrics = self._learn(state, group, advantages)
        return state, {
            **metrics,
            **rewards.metrics(),
            **_lengths(np.concatenate(lengths), np.concatenate(ended)),
            "zero_spread_share": float(zero_spread(rewards.total, size).mean()),
            "prompts_drawn": drawn,
            "advantage/mean_abs": float(sum(total for total, _ in sizes) / sum(count for _, count in sizes)),
            "seconds/reshard": moved - began,
            "seconds/rollout": rolled - moved,
            "seconds/learn_dispatch": time.monotonic() - rolled,
        }

    def _collect(self, state: TrainState, model: Qwen2VL, batch: Batch) -> tuple[Group, int]:
        """Completions of `batch`, and of more prompts while too many groups have no spread; how many prompts all
        processes drew."""
        key, size = jax.random.fold_in(jax.random.key(self.config.seed), self.step), self.engine.group_size
        draws = [self._roll_out(state, model, batch, key, 0)]
        if not self.config.rollout.refills:  # nothing to ask the other processes
            return draws[0], self.config.batch_size
        useful = self._informative(draws[0])
        while len(draws) <= self.config.rollout.refills and useful.sum() < self.config.batch_size:
            draws.append(self._roll_out(state, model, next(self.batches), key, len(draws)))
            useful = np.concatenate([useful, self._informative(draws[-1])])
        if len(draws) == 1:
            return draws[0], len(useful)
        chosen = first_useful(useful, self.config.batch_size)
        return choose(draws, chosen, size, self.mesh), len(useful)

    def _informative(self, draw: Group) -> Bool[np.ndarray, " B"]:
        """Which prompts of a draw, of all processes, have groups with spread."""
        spread = ~zero_spread(draw.rewards.total, self.engine.group_size)
        return np.concatenate(gather_shares(self.mesh, spread))

    def _roll_out(self, state: TrainState, model: Qwen2VL, batch: Batch, key: Array, refill: int) -> Group:
        share, shares = batch_share(self.mesh)
        ids = (refill * shares + share) * len(batch.samples) + np.arange(len(batch.samples))
        completion = self.engine.complete(model, batch, key, ids)
        scores = self._score(state, batch.arrays, completion)  # dispatched; the host goes on
        rewards = self.settings.rewards(
            self.step,
            [sample.question for sample in completion.samples],
            completion.texts,
            columns_of(completion.samples),
        )
        if self.config.rollout.overlong == "shape":
            rewards = _with_penalty(rewards, completion, self.config.rollout)
        return Group(batch.arrays, completion, scores, rewards)

    def _score(
        self, state: TrainState, prompts: Mapping[str, np.ndarray], completion: Completion
    ) -> dict[str, Array]:
        rows = put_rows(self.mesh, (dict(prompts), completion.tokens, completion.mask))
        scores = {}
        if not self.settings.on_policy:
            scores["old_logprobs"] = self.score(state.trainable, state.frozen, *rows)
        if self.reference is not None:
            scores["reference_logprobs"] = self.score(self.reference, state.frozen, *rows)
        return scores

    def _learn(
        self, state: TrainState, group: Group, advantages: Float[np.ndarray, "R N"]
    ) -> tuple[TrainState, dict[str, Any]]:
        completion = group.completion
        mask = completion.mask
        if self.config.rollout.overlong == "drop":
            mask = mask & completion.ended[:, None]
        prompts, tokens, mask, values, drawn, nothing = put_rows(
            self.mesh,
            (
                dict(group.prompts),
                completion.tokens,
                mask,
                advantages.astype(np.float32),
                completion.logprobs,
                np.zeros(mask.shape, np.float32),
            ),
        )
        experience = Experience(
            mask=mask,
            advantages=values,
            old_logprobs=group.scores.get("old_logprobs", nothing),
            sampler_logprobs=drawn,
            reference_logprobs=group.scores.get("reference_logprobs"),
            weights=nothing,  # made by the update, from the mask of all its rows
        )
        metrics: dict[str, Any] = {}
        for _ in range(self.config.epochs):
            for part in range(self.config.minibatches):
                state, metrics = self.update(state, *self._minibatch(part, prompts, tokens, experience))
        return state, metrics

    def _minibatch(
        self, part: int, prompts: Prompts, tokens: Array, experience: Experience
    ) -> tuple[Prompts, Array, Experience]:
        """Every `minibatches`-th prompt from `part` on, with its whole group."""
        if self.config.minibatches == 1:
            return prompts, tokens, experience
        chosen = np.arange(part, len(prompts["tokens"]), self.config.minibatches)
        rows = rows_of(chosen, self.engine.group_size)
        return _take(prompts, chosen), tokens[rows], _take(experience, rows)


def _take(tree: Any, rows: Int[np.ndarray, " N"]) -> Any:
    return jax.tree.map(lambda x: x[rows], tree)


def _with_penalty(rewards: Rewards, completion: Completion, rollout: ConfigDict) -> Rewards:
    """A reward more: minus what the length of a completion costs (`losses.overlong_penalty`)."""
    lengths = jnp.asarray(completion.lengths)
    penalty = np.asarray(
        overlong_penalty(lengths, rollout.max_new_tokens, rollout.overlong_buffer), np.float64
    )
    return Rewards(
        total=rewards.total + penalty,
        components={**rewards.components, "overlong": penalty},
        steps={**rewards.steps, "overlong": (None,) * len(penalty)},
        weights={**rewards.weights, "overlong": 1.0},
    )


def _lengths(lengths: Int[np.ndarray, " R"], ended: Bool[np.ndarray, " R"]) -> dict[str, float]:
    return {
        "response/length_mean": float(lengths.mean()),
        "response/length_max": float(lengths.max()),
        "response/cut_share": float(1 - ended.mean()),
    }
