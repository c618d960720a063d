"""From a config's `model` section to a processor and a model on the mesh, and to the state that a run begins with."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from chestx_jax.data import Processor
from chestx_jax.models.lora import add_lora
from chestx_jax.models.qwen2_vl import QWEN2_VL_2B, QWEN2_VL_7B, SMALL, TINY, Qwen2VL, Qwen2VLConfig
from chestx_jax.models.qwen2_vl.attention import check_attention, check_lengths, check_platform
from chestx_jax.parallel import by_first, init_sharded, place
from chestx_jax.training.optimizer import make_optimizer
from chestx_jax.training.state import TrainingError, TrainState, init_state, split_model
from chestx_jax.weights import MODEL, Adapter, companions, load_pretrained, write_model_files

ARCHS = {"tiny": TINY, "small": SMALL, "qwen2_vl_2b": QWEN2_VL_2B, "qwen2_vl_7b": QWEN2_VL_7B}
VOCAB_MULTIPLE = 64  # random models pad their vocabulary, so that a mesh can divide it


def make_processor(config: ConfigDict, image_size: int, fallback: Path | None) -> Processor:
    """The processor that `config` (the `model` section) names: its own, else `pretrained`'s, else `fallback`.

    Raises:
      TrainingError: when there is none of them.
      ProcessorError: when its directory is not usable.
    """
    directory = config.processor or (config.pretrained and companions(config.pretrained)) or fallback
    if not directory:
        raise TrainingError(
            "config.model.processor is empty: give a directory with a tokenizer and a preprocessor"
        )
    return Processor.from_pretrained(directory, image_size=image_size)


def check_kernel(config: ConfigDict, devices: Iterable[jax.Device]) -> None:
    """Tells before anything is loaded or compiled that `config.model.attention` does not run on these devices, in this
    compute type, or on rows of one of `config.data.buckets`.

    Raises:
      AttentionError: which, and what to change.
    """
    attention = config.model.attention
    check_attention(attention, config.model.dtype, head_sizes=())  # those are checked where the model is made
    for platform in {device.platform for device in devices}:
        check_platform(attention, platform)
    check_lengths(attention, (length for bucket in config.data.buckets for length in bucket))


def make_model(config: ConfigDict, processor: Processor, mesh: Mesh, seed: int) -> Qwen2VL:
    """The model that `config` (the `model` section) describes, its parameters on `mesh`.

    Raises:
      TrainingError: when neither `pretrained` nor a known `arch` is given.
      WeightsError: when `pretrained` is not a usable directory.
      AttentionError: see `Qwen2VL`.
    """
    dtype, param_dtype = jnp.dtype(config.dtype), jnp.dtype(config.param_dtype)
    if config.pretrained:
        model = load_pretrained(
            config.pretrained,
            dtype=param_dtype,
            mesh=mesh,
            compute_dtype=dtype,
            remat=config.remat,
            attention=config.attention,
        )
    elif config.arch in ARCHS:
        sizes = fit_to_tokenizer(ARCHS[config.arch], processor)
        model = init_sharded(
            lambda: Qwen2VL(
                sizes,
                rngs=nnx.Rngs(params=seed),
                dtype=dtype,
                param_dtype=param_dtype,
                remat=config.remat,
                attention=config.attention,
            ),
            mesh,
        )
    else:
        raise TrainingError(
            f"config.model.arch is {config.arch!r} and config.model.pretrained is empty; give a directory as "
            f"pretrained, or one of {', '.join(ARCHS)} as arch"
        )
    if config.lora.rank:
        add_lora(model, config.lora.rank, config.lora.alpha, config.lora.targets, nnx.Rngs(params=seed + 1))
        place(model, mesh)
    return model


def first_state(
    model: Qwen2VL, config: ConfigDict, updates: int, learns: Callable[[str], bool], mesh: Mesh
) -> tuple[nnx.GraphDef, optax.GradientTransformation, TrainState]:
    """(structure, optimizer, state) that a run of `updates` begins with (`planning.abstract` has it without weights).

    Args:
      config: of the whole run.
      learns: which dotted parameter paths do.
    """
    graphdef, params = split_model(model)
    tx = make_optimizer(config.optimizer, updates, config.guard.spike)
    return graphdef, tx, init_state(params, tx, learns, mesh, offload=config.optimizer.offload)


def write_companions(workdir: Path, model: Qwen2VLConfig, processor: Processor, lora: ConfigDict) -> None:
    """Write `workdir/model`: what a checkpoint needs beside its arrays. The first of several processes does.

    Raises:
      WeightsError: the directory belongs to another model or adapter already.
    """

    def write() -> None:
        adapter = Adapter(**lora) if lora.rank else None
        write_model_files(workdir, model, source=processor.directory, adapter=adapter)
        processor.save_pretrained(workdir / MODEL)

    by_first(write)


def fit_to_tokenizer(sizes: Qwen2VLConfig, processor: Processor) -> Qwen2VLConfig:
    """`sizes` with the vocabulary and the special tokens of `processor`, for a model with random weights."""
    vocab_size = -(-processor.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    return dataclasses.replace(sizes, vocab_size=vocab_size, **processor.token_ids())
