"""The programs of a GRPO step: weights to where they write, rollout, log-probabilities, update."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig
from chestx_jax.models.qwen2_vl.flops import rollout_flops
from chestx_jax.parallel import make_mesh, shardings
from chestx_jax.planning.abstract import (
    PlanError,
    Program,
    abstract_batch,
    abstract_model,
    abstract_state,
    chip_bytes,
    in_words,
    placed,
    rows_of,
    state_parts,
    training_program,
)
from chestx_jax.planning.textbook import Passes, groups_flops
from chestx_jax.rollout import Sampling, writing_mesh
from chestx_jax.rollout.decode import _generate
from chestx_jax.rollout.layout import mover, writing_params
from chestx_jax.training.grpo.objective import Experience, Objective
from chestx_jax.training.grpo.settings import objective_of, sampling_of
from chestx_jax.training.grpo.update import make_score, make_update
from chestx_jax.training.optimizer import learning_rate
from chestx_jax.training.state import trainable_paths


class Run:
    """What a GRPO run of `config` holds on its devices."""

    def __init__(
        self, config: ConfigDict, sizes: Qwen2VLConfig, devices: list[jax.Device], tokens: int, patches: int
    ):
        self.config, self.sizes, self.tokens, self.patches = config, sizes, tokens, patches
        self.mesh = make_mesh(config.mesh, devices)
        self.writing = writing_mesh(self.mesh, config.rollout.tensor)
        self.updates = config.epochs * config.minibatches
        self.group, self.new_tokens = config.rollout.group_size, config.rollout.max_new_tokens
        self.objective: Objective = objective_of(config)
        # a processor forbids a few hundred more: they are constants of the program, of the same size
        self.sampling = Sampling(**{**vars(sampling_of(config)), "forbidden_ids": self._vision_ids()})
        self.model = abstract_model(config.model, sizes, self.mesh)
        learns = trainable_paths(config.model.freeze, lora=bool(config.model.lora.rank))
        self.graphdef, self.tx, self.state = abstract_state(
            self.model, config, config.steps * self.updates, learns, self.mesh
        )
        self.writer = _writer(self.model, self.writing, moves=self.writing != self.mesh)

    def _vision_ids(self) -> tuple[int, ...]:
        return (self.sizes.image_token_id, self.sizes.video_token_id)

    @property
    def bucket(self) -> str:
        """The shape of its prompts."""
        return in_words(self.tokens, self.patches)

    def reference(self) -> dict[str, int]:
        """Bytes of the reference's parameters, those that learn; the others are shared."""
        return {"reference": chip_bytes(self.state.trainable)} if self.objective.kl_weight else {}

    def moved(self) -> dict[str, int]:
        """Bytes of the weights as they write; nothing where those of training do."""
        own = self.writing != self.mesh
        return {"weights that write": chip_bytes(nnx.to_pure_dict(nnx.state(self.writer)))} if own else {}

    def prompts(self, mesh: Mesh, count: int) -> dict[str, Any]:
        """A batch of prompts."""
        return abstract_batch(mesh, count, self.tokens, self.patches, target=False)

    def rows(self, prompts: int, dtype: Any) -> Any:
        """An array of the completions' tokens."""
        return rows_of(self.mesh, (prompts * self.group, self.new_tokens), dtype)

    def flops(self, passes: Passes, prompts: int) -> float:
        """Reading prompts and completions."""
        lengths = (self.tokens, self.patches, self.new_tokens)
        return groups_flops(self.sizes, passes, prompts, self.group, *lengths)


def _writer(model: Qwen2VL, mesh: Mesh, moves: bool) -> Qwen2VL:
    if not moves:
        return model
    graphdef, state = nnx.split(model, nnx.Param)
    params = jax.eval_shape(partial(writing_params, dtype=model.text.embed.dtype), nnx.to_pure_dict(state))
    return nnx.merge(graphdef, nnx.State(placed(params, shardings(model, mesh))))


def reshard(*where: Any) -> Program:
    """The weights from where they train to where they write."""
    run = Run(*where)
    if run.writing == run.mesh:
        raise PlanError("config.rollout.tensor keeps the training layout: there is nothing to move")
    places = traverse_util.flatten_dict(shardings(run.model, run.writing))
    params = nnx.to_pure_dict(nnx.state(run.model, nnx.Param))
    moved, parts = run.moved(), state_parts(run.state)
    return Program(
        name="grpo reshard",
        bucket=run.bucket,
        trace=partial(mover(jnp.dtype(run.model.text.embed.dtype), tuple(places.items())).trace, params),
        mesh=run.mesh,
        parts={"parameters": parts["parameters"]},
        resident={"optimizer": parts["optimizer"], **run.reference()},
        model_flops=0.0,
        tokens=0,
        hbm_bytes=parts["parameters"] + sum(moved.values()),
        runs=run.config.steps,
    )


def rollout(*where: Any) -> Program:
    """Prefill and decode of one step's prompts, on a mesh of its own."""
    run = Run(*where)
    config, sizes = run.config, run.sizes
    prompts, rows = config.batch_size, config.batch_size * run.group
    batch = run.prompts(run.writing, prompts)
    weights = chip_bytes(nnx.to_pure_dict(nnx.state(run.writer)))
    # bytes of a position's keys and values
    kv = 2 * sizes.num_layers * sizes.num_kv_heads * sizes.head_dim * jnp.dtype(config.model.dtype).itemsize
    cache = (prompts * run.tokens + rows * run.new_tokens / 2) * kv / run.writing.size
    training = state_parts(run.state) if run.moved() else {"optimizer": state_parts(run.state)["optimizer"]}
    return Program(
        name=f"rollout of {rows} x {run.new_tokens}, {run.bucket}",
        bucket=run.bucket,
        trace=partial(
            _generate.trace,
            run.writer,
            batch,
            jax.eval_shape(lambda: jax.random.key(0)),
            jax.ShapeDtypeStruct((rows,), jnp.int32),
            max_new_tokens=run.new_tokens,
            eos_ids=(sizes.eos_token_id,),
            sampling=run.sampling,
            group_size=run.group,
        ),
        mesh=run.writing,
        parts={"weights that write": weights, "prompts": chip_bytes(batch)},
        resident={**training, **run.reference()},
        model_flops=rollout_flops(sizes, prompts, run.group, run.tokens, run.patches, run.new_tokens),
        tokens=rows * run.new_tokens,
        hbm_bytes=int(run.new_tokens * (weights + cache)),
        runs=config.steps * (1 + config.rollout.refills),
    )


def score(*where: Any) -> Program:
    """Log-probabilities of one step's completions: under the reference, and under the policy where updates are
    several."""
    run = Run(*where)
    config = run.config
    times = bool(run.objective.kl_weight) + (run.updates > 1)
    if not times:
        raise PlanError(
            "config.objective.kl_weight is 0 and there is one update a rollout: nothing is scored"
        )
    program: Any = make_score(
        run.graphdef, run.sampling, config.loss_chunk, parts=config.minibatches * config.accumulation
    )
    prompts = config.batch_size
    batch = run.prompts(run.mesh, prompts), run.rows(prompts, jnp.int32), run.rows(prompts, jnp.bool_)
    parts = state_parts(run.state)
    return Program(
        name=f"grpo score {run.bucket}",
        bucket=run.bucket,
        trace=partial(program.trace, run.state.trainable, run.state.frozen, *batch),
        mesh=run.mesh,
        parts={"parameters": parts["parameters"], "completions": chip_bytes(batch)},
        resident={"optimizer": parts["optimizer"], **run.reference(), **run.moved()},
        model_flops=run.flops(Passes(), prompts),
        tokens=prompts * (run.tokens + run.group * run.new_tokens),
        hbm_bytes=parts["parameters"] + chip_bytes(batch),
        runs=times * config.steps * (1 + config.rollout.refills),
    )


def update(*where: Any) -> Program:
    """One update from one step's completions, or from a minibatch of them."""
    run = Run(*where)
    config, state = run.config, run.state
    step: Any = make_update(
        run.graphdef,
        run.tx,
        learning_rate(config.optimizer, config.steps * run.updates),
        run.objective,
        run.sampling,
        accumulation=config.accumulation,
        chunk=config.loss_chunk,
        on_policy=run.updates == 1,
    )
    prompts = config.batch_size // config.minibatches
    batch = run.prompts(run.mesh, prompts), run.rows(prompts, jnp.int32), _experience(run, prompts)
    return training_program(
        "grpo update",
        run.bucket,
        step,
        state,
        batch,
        mesh=run.mesh,
        resident=run.reference(),
        model_flops=run.flops(Passes.of(state.trainable, run.sizes.tie_word_embeddings), prompts),
        tokens=prompts * (run.tokens + run.group * run.new_tokens),
        runs=config.steps * run.updates,
    )


def _experience(run: Run, prompts: int) -> Experience:
    numbers = run.rows(prompts, jnp.float32)
    return Experience(
        mask=run.rows(prompts, jnp.bool_),
        advantages=numbers,
        old_logprobs=numbers,
        sampler_logprobs=numbers,
        reference_logprobs=numbers if run.objective.kl_weight else None,
        weights=numbers,
    )
