"""M-RoPE positions against the published golden, an independent per-token reading, and (parity)
transformers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.data.positions import PositionError, mrope_positions

GOLDEN = Path(__file__).parents[1] / "golden" / "processor.npz"
IMAGE, START, END = 190, 188, 189
grids_strategy = st.lists(
    st.tuples(st.just(1), st.integers(1, 5).map(lambda n: 2 * n), st.integers(1, 5).map(lambda n: 2 * n)),
    max_size=4,
)


def sequence(grids, texts):
    """Token ids with `texts[i]` text tokens before image i and the last count at the end."""
    tokens = []
    for (t, h, w), before in zip(grids, texts, strict=False):
        tokens += [5] * before + [START] + [IMAGE] * (t * h * w // 4) + [END]
    return np.array(tokens + [7] * texts[len(grids)], np.int32)


def by_token(tokens, grids):
    """The definition, one token at a time: an oracle that shares nothing with the vectorised code."""
    out, offset, image, i = [], 0, 0, 0
    while i < len(tokens):
        if tokens[i] != IMAGE:
            out.append((offset,) * 3)
            offset, i = offset + 1, i + 1
            continue
        _, h, w = grids[image]
        for row in range(h // 2):
            for col in range(w // 2):
                out.append((offset, offset + row, offset + col))
        i += h * w // 4
        offset += max(h, w) // 2
        image += 1
    return np.array(out, np.int32).reshape(-1, 3).T, offset - len(tokens)


def test_published_golden():
    tokens = np.array([5, START, IMAGE, IMAGE, IMAGE, IMAGE, END, 6, 7])
    positions, delta = mrope_positions(tokens, [(1, 4, 4)], image_token_id=IMAGE, merge=2)
    np.testing.assert_array_equal(positions[0], [0, 1, 2, 2, 2, 2, 4, 5, 6])
    np.testing.assert_array_equal(positions[1], [0, 1, 2, 2, 3, 3, 4, 5, 6])
    np.testing.assert_array_equal(positions[2], [0, 1, 2, 3, 2, 3, 4, 5, 6])
    assert delta == -2 and positions.dtype == np.int32


def test_golden_from_transformers():
    golden = np.load(GOLDEN)
    for case in range(int(golden["rope_cases"])):
        tokens, grids = golden[f"rope{case}_tokens"], golden[f"rope{case}_grids"]
        positions, delta = mrope_positions(tokens, grids, image_token_id=IMAGE, merge=2)
        np.testing.assert_array_equal(positions, golden[f"rope{case}_positions"])
        assert delta == int(golden[f"rope{case}_delta"])


@given(grids_strategy, st.lists(st.integers(0, 6), min_size=5, max_size=5))
def test_equals_the_definition(grids, texts):
    tokens = sequence(grids, texts)
    positions, delta = mrope_positions(tokens, grids, image_token_id=IMAGE, merge=2)
    expected, expected_delta = by_token(tokens, grids)
    np.testing.assert_array_equal(positions, expected)
    assert delta == expected_delta
    if len(tokens) and tokens[-1] != IMAGE:
        assert (positions[:, -1] + 1 == len(tokens) + delta).all()  # the next token's position


@pytest.mark.parametrize(
    ("tokens", "grids", "message"),
    [
        ([5, IMAGE, 6], [], "1 run.* but 0 image grid"),
        ([5, 6], [(1, 2, 2)], "0 run.* but 1 image grid"),
        ([5, IMAGE, IMAGE, 6], [(1, 2, 2)], r"image 0: 2 image tokens, .* needs 1"),
        ([5, IMAGE, 6, IMAGE, 7], [(1, 2, 2), (1, 4, 2)], r"image 1: 1 image tokens, .* needs 2"),
        ([IMAGE], [(1, 3, 2)], "no multiple of the merge size 2"),
    ],
)
def test_disagreement_is_an_error(tokens, grids, message):
    with pytest.raises(PositionError, match=message):
        mrope_positions(np.array(tokens), grids, image_token_id=IMAGE, merge=2)


@pytest.mark.parity
@settings(max_examples=40, deadline=None)
@given(grids_strategy, st.lists(st.integers(0, 6), min_size=5, max_size=5))
def test_equals_transformers(grids, texts):
    torch = pytest.importorskip("torch")
    from tests.golden.make_processor import rope_index

    tokens = sequence(grids, texts)
    if not len(tokens):
        return
    expected, delta = rope_index(torch, tokens, grids)
    positions, our_delta = mrope_positions(tokens, grids, image_token_id=IMAGE, merge=2)
    np.testing.assert_array_equal(positions, expected)
    assert our_delta == delta
