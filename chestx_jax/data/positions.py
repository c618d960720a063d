"""Multimodal rotary positions (M-RoPE), computed on the host with numpy.

Every token has three position indices: time, height, width. Text counts up by one in all three at once; the
merged patches of an image share one time index and carry their row and column; the text after an image goes
on from the largest index used so far.
Source: Qwen2-VL (arXiv 2409.12191), section 2.1.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Integer


class PositionError(ValueError):
    """Image tokens and image grids of one sequence disagree."""


def image_runs(tokens: Integer[np.ndarray, " T"], image_token_id: int) -> list[tuple[int, int]]:
    """Half-open ranges `(start, end)` of the maximal runs of `image_token_id` in `tokens`."""
    is_image = np.concatenate([[False], np.asarray(tokens) == image_token_id, [False]])
    edges = np.flatnonzero(is_image[1:] != is_image[:-1])
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def mrope_positions(
    tokens: Integer[np.ndarray, " T"],
    grids: Sequence[Sequence[int]] | Integer[np.ndarray, "I 3"],
    *,
    image_token_id: int,
    merge: int,
) -> tuple[Int32[np.ndarray, "3 T"], int]:
    """Positions of one unpadded sequence; equal to `Qwen2VLModel.get_rope_index` of transformers.

    Args:
      tokens: token ids, each image already expanded to one `image_token_id` a merged patch, images apart by
        at least one other token.
      grids: `(t, h, w)` of each image in patches (before merging), in the order of the text.
      image_token_id: id of `<|image_pad|>`.
      merge: side of the square of patches merged into one token (2).

    Returns:
      `positions[3, T]` (time, height, width) and `delta`: the next token's position is `T + delta` in all
      three.

    Raises:
      PositionError: the number of image runs, or the length of one, disagrees with the grids.
    """
    tokens = np.asarray(tokens)
    runs = image_runs(tokens, image_token_id)
    if len(runs) != len(grids):
        raise PositionError(f"{len(runs)} run(s) of image tokens, but {len(grids)} image grid(s)")
    positions = np.empty((3, len(tokens)), np.int32)
    offset = done = 0
    for index, ((start, end), (t, h, w)) in enumerate(zip(runs, grids, strict=True)):
        if h % merge or w % merge:
            raise PositionError(
                f"image {index}: grid {(int(t), int(h), int(w))} is no multiple of the merge size {merge}"
            )
        rows, cols = int(h) // merge, int(w) // merge
        if end - start != t * rows * cols:
            expected = f"grid {(int(t), int(h), int(w))} needs {t * rows * cols}"
            raise PositionError(f"image {index}: {end - start} image tokens, but its {expected}")
        positions[:, done:start] = np.arange(offset, offset + start - done)
        offset += start - done
        positions[:, start:end] = offset + np.indices((int(t), rows, cols)).reshape(3, -1)
        offset += max(rows, cols)
        done = end
    positions[:, done:] = np.arange(offset, offset + len(tokens) - done)
    top = int(positions.max()) + 1 if len(tokens) else 0
    return positions, top - len(tokens)
