"""The arrays one sample becomes, the buckets they are padded to, and the stacking of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float32, Int32


class BucketError(ValueError):
    """An example that fits no bucket, or a bucket that no model takes."""


@dataclass(frozen=True)
class Bucket:
    """A static shape: room for `tokens` tokens and `patches` patches a row. One compiled program each."""

    tokens: int
    patches: int

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.patches < 0 or self.patches % 4:
            raise BucketError(f"{self}: tokens must be positive and patches a multiple of 4 (or 0)")


@dataclass(frozen=True)
class Example:
    """One sample as arrays, unpadded: T tokens, P patches. See `stack` for a padded batch of them."""

    tokens: Int32[np.ndarray, " T"]
    positions: Int32[np.ndarray, "3 T"]
    segments: Int32[np.ndarray, " T"]  # 1 sample, 0 padding
    loss_mask: Bool[np.ndarray, " T"]  # True where the token at that index is to be predicted
    patches: Float32[np.ndarray, "P F"]
    patch_hw: Int32[np.ndarray, "P 2"]  # row and column of each patch in its image
    patch_segments: Int32[np.ndarray, " P"]  # 1, 2, .. the number of the image, 0 padding
    image_index: Int32[np.ndarray, " T"]  # which merged feature of this example, -1 text

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_patches(self) -> int:
        return len(self.patches)


def order_buckets(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """The buckets, distinct and cheapest first: fewest tokens plus patches, for each of them passes through
    a transformer."""
    if not buckets:
        raise BucketError("no buckets given")
    return tuple(sorted(set(buckets), key=lambda b: (b.tokens + b.patches, b.tokens)))


def smallest_bucket(tokens: int, patches: int, buckets: Sequence[Bucket]) -> int | None:
    """Index of the first of `buckets` (cheapest first) with room for both, or None."""
    fits = (i for i, b in enumerate(buckets) if tokens <= b.tokens and patches <= b.patches)
    return next(fits, None)


def stack(
    examples: Sequence[Example],
    bucket: Bucket,
    pad_id: int,
    patches: Float32[np.ndarray, "B P F"] | None = None,
) -> dict[str, np.ndarray]:
    """Right-pads the examples to the bucket and stacks them: the arrays of `Example` with a leading B.

    Padding: tokens `pad_id`, image_index -1, everything else 0. Masks come from `segments` and
    `patch_segments`, never from the ids.

    Args:
      patches: the batch's patches if the examples were made inside it (see `Processor.__call__`): then the
        one large array is not copied.

    Raises: BucketError when an example is larger than the bucket.
    """
    for row, example in enumerate(examples):
        if example.num_tokens > bucket.tokens or example.num_patches > bucket.patches:
            size = f"{example.num_tokens} tokens and {example.num_patches} patches"
            raise BucketError(f"row {row}: {size} do not fit {bucket}")
    filler = {"tokens": pad_id, "image_index": -1}
    batch = {} if patches is None else {"patches": patches}
    for name in (field.name for field in fields(Example) if field.name not in batch):
        rows = [getattr(example, name) for example in examples]
        room = bucket.patches if name.startswith("patch") else bucket.tokens
        shape = (3, room) if name == "positions" else (room, *rows[0].shape[1:])
        out = np.zeros((len(rows), *shape), rows[0].dtype)
        if name in filler:
            out.fill(filler[name])
        for target, row in zip(out, rows, strict=True):
            if name == "positions":
                target[:, : row.shape[1]] = row
            else:
                target[: len(row)] = row
        batch[name] = out
    return batch
