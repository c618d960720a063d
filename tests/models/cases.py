"""Tiny random Qwen2-VL models and inputs, made from seeds with numpy: the same for torch and JAX."""

import dataclasses
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from chestx_jax.data.positions import mrope_positions
from chestx_jax.models.qwen2_vl import Qwen2VL, Qwen2VLConfig, VisionConfig

IMAGE, START, END = 4, 2, 3
FIRST_TEXT_ID = 10

Row = tuple[int | tuple[int, int], ...]  # how many text tokens, or the patch grid of an image, in order


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and a padded batch for it."""

    name: str
    config: Qwen2VLConfig
    rows: tuple[Row, ...]
    pad: str = "right"


def tiny_config(
    heads: int = 4, kv_heads: int = 2, width: int = 64, tied: bool = False, patch: int = 4, sections=None
) -> Qwen2VLConfig:
    half = width // heads // 2
    return Qwen2VLConfig(
        vocab_size=120,
        hidden_size=width,
        num_layers=3,
        num_heads=heads,
        num_kv_heads=kv_heads,
        intermediate_size=96,
        mrope_section=sections or (half - 2 * (half // 3), half // 3, half // 3),
        tie_word_embeddings=tied,
        vision=VisionConfig(depth=2, embed_dim=32, num_heads=2, patch_size=patch),
        rope_theta=10000.0,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        image_token_id=IMAGE,
        video_token_id=5,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )


CASES = (
    Case("tied_one_image", tiny_config(4, 2, tied=True), ((4, (4, 4), 9), (6, (2, 6), 3))),
    Case(
        "untied_zero_to_three_images",
        tiny_config(8, 2, width=64),
        ((3, (4, 4), 2, (2, 4), 5, (6, 2), 7), (12,), (2, (4, 6), 9), ((2, 2), (4, 4), 6)),
    ),
    Case("left_padding", tiny_config(4, 4), ((5, (4, 2), 8), (3, (4, 4), 1, (2, 2), 4), (6,)), pad="left"),
    Case("text_only_tied", tiny_config(4, 2, tied=True), ((9,), (17,), (4,))),
    Case("text_only_left", tiny_config(4, 1), ((11,), (5,)), pad="left"),
    Case(
        "real_patches_left",
        tiny_config(2, 2, width=32, tied=True, patch=14),
        (((4, 4), 10), (2, (6, 4), 4)),
        pad="left",
    ),
    Case(
        "three_images_uneven_sections",
        tiny_config(4, 1, sections=(2, 3, 3)),
        ((1, (8, 2), 2, (2, 8), 2, (6, 6), 9),),
    ),
)
CASE_IDS = [case.name for case in CASES]


def _row(config: Qwen2VLConfig, row: Row, rng: np.random.Generator) -> dict[str, np.ndarray | list]:
    """One unpadded example as the processor would make it, and its grids."""
    tokens, patches, hw, segments, grids = [], [], [], [], []
    merge = config.vision.spatial_merge_size
    for piece in row:
        if isinstance(piece, int):
            tokens += rng.integers(FIRST_TEXT_ID, config.vocab_size, piece).tolist()
            continue
        h, w = piece
        grids.append((1, h, w))
        tokens += [START] + [IMAGE] * (h * w // merge**2) + [END]
        patches.append(rng.standard_normal((h * w, config.vision.patch_dim), np.float32))
        place = np.indices((h, w)).reshape(2, h // merge, merge, w // merge, merge)
        hw.append(place.transpose(1, 3, 2, 4, 0).reshape(-1, 2))
        segments += [len(grids)] * (h * w)
    tokens_array = np.asarray(tokens, np.int32)
    is_image = tokens_array == IMAGE
    loss_mask = (np.arange(len(tokens)) >= 2 * len(tokens) // 3) & ~is_image
    return {
        "tokens": tokens_array,
        "positions": mrope_positions(tokens_array, grids, image_token_id=IMAGE, merge=merge)[0],
        "segments": np.ones(len(tokens), np.int32),
        "loss_mask": loss_mask,
        "patches": np.concatenate([*patches, np.zeros((0, config.vision.patch_dim), np.float32)]),
        "patch_hw": np.concatenate([*hw, np.zeros((0, 2), int)]).astype(np.int32),
        "patch_segments": np.asarray(segments, np.int32),
        "image_index": np.where(is_image, np.cumsum(is_image) - 1, -1).astype(np.int32),
        "grids": grids,
    }


def unpadded_rows(case: Case) -> list[dict]:
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    return [_row(case.config, row, rng) for row in case.rows]


def pad_rows(
    rows: list[dict], side: str = "right", extra_tokens: int = 2, extra_patches: int = 4
) -> dict[str, np.ndarray]:
    """A batch with a little more room than the longest row needs, filled with what must not matter."""
    length = max(len(r["tokens"]) for r in rows) + extra_tokens
    room = max(len(r["patches"]) for r in rows)
    room = room + extra_patches if room else 0
    fill = {"tokens": 7, "image_index": -1, "patches": 3.0}
    batch = {}
    for name in (key for key in rows[0] if key != "grids"):
        patch_array = name.startswith("patch")
        out = []
        for row in rows:
            array = np.asarray(row[name])
            axis = 1 if name == "positions" else 0
            missing = (room if patch_array else length) - array.shape[axis]
            widths = [(0, 0)] * array.ndim
            # only tokens are padded on the left: image_index counts features from the start of the patches
            widths[axis] = (missing, 0) if side == "left" and not patch_array else (0, missing)
            out.append(np.pad(array, widths, constant_values=fill.get(name, 0)))
        batch[name] = np.stack(out)
    return batch


def make_batch(case: Case) -> dict[str, np.ndarray]:
    return pad_rows(unpadded_rows(case), case.pad)


def numpy_weights(config: Qwen2VLConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights by parameter path. Larger than at a real start, so that logits are far apart and every term of
    the model (biases, norm scales) shows."""
    model = nnx.eval_shape(lambda: Qwen2VL(config, rngs=nnx.Rngs(0)))
    weights = {}
    for path, param in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        name = ".".join(map(str, path))
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        draw = rng.standard_normal(param.shape, np.float32)
        if name.endswith("kernel"):
            draw *= 1.2 * param.shape[-2] ** -0.5
        elif name.endswith("scale"):
            draw = 1 + 0.2 * draw
        elif name.endswith("bias"):
            draw *= 0.2
        else:  # the embedding; tied, it is the output layer too, and must not make a token predict itself
            draw *= 2 * config.hidden_size**-0.5
        weights[name] = draw.astype(np.float32)
    return weights


def build(config: Qwen2VLConfig, weights: Mapping[str, np.ndarray] | None = None, **options) -> Qwen2VL:
    """The model with given (or seeded) weights."""
    model = nnx.eval_shape(lambda: Qwen2VL(config, rngs=nnx.Rngs(0), **options))
    put_weights(model, numpy_weights(config) if weights is None else weights)
    return model


def put_weights(model: Qwen2VL, weights: Mapping[str, np.ndarray]) -> None:
    left = dict(weights)
    for path, param in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        value = left.pop(".".join(map(str, path)))
        assert value.shape == param.shape, (path, value.shape, param.shape)
        param.set_value(jnp.asarray(value.astype(param.dtype)))
    assert not left, left.keys()


run = jax.jit(Qwen2VL.__call__)


def extend(row: dict, tokens: np.ndarray) -> dict:
    """An unpadded row with a continuation."""
    extra = len(tokens)
    after = row["positions"].max() + 1 + np.arange(extra, dtype=np.int32)
    return {
        **row,
        "tokens": np.concatenate([row["tokens"], np.asarray(tokens, np.int32)]),
        "positions": np.concatenate([row["positions"], np.tile(after, (3, 1))], axis=1),
        "segments": np.pad(row["segments"], (0, extra), constant_values=1),
        "image_index": np.pad(row["image_index"], (0, extra), constant_values=-1),
        "loss_mask": np.pad(row["loss_mask"], (0, extra), constant_values=True),
    }


def loss(logits: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Mean cross-entropy of the tokens that `loss_mask` marks as targets."""
    logprobs = jax.nn.log_softmax(logits[:, :-1], axis=-1)
    picked = jnp.take_along_axis(logprobs, batch["tokens"][:, 1:, None], axis=-1)[..., 0]
    mask = batch["loss_mask"][:, 1:]
    return -jnp.sum(picked * mask) / jnp.sum(mask)


def logits_and_gradients(
    model: Qwen2VL, batch: Mapping[str, jax.Array]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """All logits, and the loss's gradient of every parameter by path."""
    graph, state = nnx.split(model, nnx.Param)

    @jax.jit
    def run(state):
        def objective(state):
            model = nnx.merge(graph, state)
            logits = model(batch)
            return loss(logits, batch), logits

        return jax.grad(objective, has_aux=True)(state)

    gradients, logits = run(state)
    return np.asarray(logits), {
        ".".join(map(str, path)): np.asarray(g[...]) for path, g in nnx.to_flat_state(gradients)
    }


def checksum(weights: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Tells a change of the seeded inputs (then make the goldens anew) from a change of the model."""
    arrays = [*(weights[name] for name in sorted(weights)), *(batch[name] for name in sorted(batch))]
    return np.asarray(
        [float(np.sum(a.astype(np.float64) * np.cos(np.arange(a.size)).reshape(a.shape))) for a in arrays]
    )


def fingerprint(path: str, gradient: np.ndarray) -> np.ndarray:
    """Norm, and products with eight random vectors: their gaps to another gradient's have the standard
    deviation |difference|."""
    vectors = np.random.default_rng(zlib.crc32(path.encode())).standard_normal((8, gradient.size))
    flat = gradient.astype(np.float64).ravel()
    return np.concatenate([[np.linalg.norm(flat)], vectors @ flat])
