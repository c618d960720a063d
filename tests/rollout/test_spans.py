"""Character spans become the tokens that make them, whatever the script and however broken the bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from chestx_jax.data import Processor
from chestx_jax.data.steps import split_steps
from chestx_jax.data.tokenizer import train_tokenizer
from chestx_jax.rollout import TokenSpans

TEXT = "<think> The heart is large. Both lungs are clear. </think><answer> B </answer>"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer([TEXT] * 4, 340, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def spans(tokenizer: Tokenizer) -> TokenSpans:
    return TokenSpans.of(tokenizer)


def brute_force(spans: TokenSpans, tokens: list[int], given: list[tuple[int, int]]) -> list[int]:
    """By decoding: the bytes of the text before and up to each bound."""
    whole = spans.text(tokens)
    bounds = [(len(whole[:a].encode()), len(whole[:b].encode())) for a, b in given]
    steps, position = [], 0
    for token in tokens:
        end = position + len(spans.pieces[token])
        hits = [i for i, (a, b) in enumerate(bounds) if max(a, position) < min(b, end)]
        steps.append(hits[0] if hits else -1)
        position = end
    return steps


def test_the_steps_of_a_completion(tokenizer: Tokenizer, spans: TokenSpans) -> None:
    tokens = [*tokenizer.encode(TEXT, add_special_tokens=False).ids, tokenizer.token_to_id("<|im_end|>")]
    steps = split_steps(TEXT[7:50])
    given = [(step.start + 7, step.end + 7) for step in steps]
    got = spans.token_steps(tokens, given)
    for number, step in enumerate(steps):
        written = spans.text([t for t, s in zip(tokens, got, strict=True) if s == number])
        assert written.strip() == step.text
    assert got[-1] == -1 and got[0] == -1


def test_an_empty_span_has_no_token(tokenizer: Tokenizer, spans: TokenSpans) -> None:
    tokens = tokenizer.encode("0er", add_special_tokens=False).ids
    assert spans.token_steps(tokens, [(2, 2)]).tolist() == [-1, -1]
    assert spans.token_steps(tokens, [(2, 2), (2, 3)]).tolist() == [-1, 1]


@given(st.text(max_size=30), st.data())
def test_any_text_and_spans(tokenizer: Tokenizer, spans: TokenSpans, text: str, data: st.DataObject) -> None:
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    decoded = tokenizer.decode(tokens)
    assert spans.text(tokens) == decoded
    places = sorted(data.draw(st.lists(st.integers(0, len(decoded)), max_size=8)))
    given = list(zip(places[0::2], places[1::2], strict=False))
    assert spans.token_steps(tokens, given).tolist() == brute_force(spans, tokens, given)


@given(st.lists(st.integers(0, 339), max_size=25))
def test_any_tokens_decode_as_the_tokenizer_does(
    tokenizer: Tokenizer, spans: TokenSpans, tokens: list[int]
) -> None:
    """Broken UTF-8 and special tokens among them: a random policy writes such."""
    tokens = [token for token in tokens if token < tokenizer.get_vocab_size()]
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    assert spans.text(tokens) == text
    got = spans.token_steps(tokens, [(i, i + 1) for i in range(len(text))])
    assert all((step >= 0) == bool(spans.pieces[t]) for t, step in zip(tokens, got, strict=True))
    assert (np.diff(got[got >= 0]) >= 0).all()


def test_a_character_of_several_tokens_and_a_token_of_several_steps(
    tokenizer: Tokenizer, spans: TokenSpans
) -> None:
    tokens = tokenizer.encode("é large.", add_special_tokens=False).ids
    assert [len(spans.pieces[t]) for t in tokens[:2]] == [1, 1]  # the two bytes of é
    got = spans.token_steps(tokens, [(0, 1), (1, 4), (4, 8)])
    assert got[:3].tolist() == [0, 0, 1]
    assert spans.pieces[tokens[2]].startswith(b" l") and 2 in got


@pytest.mark.parametrize("given", [[(0, 99)], [(4, 6), (2, 3)], [(-1, 2)], [(3, 2)]])
def test_spans_that_are_not_in_the_text_are_errors(
    tokenizer: Tokenizer, spans: TokenSpans, given: list[tuple[int, int]]
) -> None:
    with pytest.raises(ValueError, match="spans"):
        spans.token_steps(tokenizer.encode("The heart", add_special_tokens=False).ids, given)


def test_another_kind_of_tokenizer_is_an_error() -> None:
    other = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    other.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match="byte"):
        TokenSpans.of(other)


def test_the_genuine_tokenizer(shared_data) -> None:
    """Every token of Qwen2-VL's, and text in scripts that its merges cut inside characters."""
    processor = Processor.from_pretrained(shared_data / "qwen2vl")
    backend = processor.tokenizer.backend_tokenizer
    spans = TokenSpans.of(backend)
    rng = np.random.default_rng(0)
    for tokens in np.split(rng.permutation(len(processor.tokenizer)), range(1000, 151_000, 1000)):
        assert spans.text(tokens) == processor.decode(tokens)
    text = "Cardiomegaly… 心脏扩大。 Нет выпота. 🫁 SpO₂ 91 %\n\nNo pleural effusion."
    tokens = backend.encode(text, add_special_tokens=False).ids
    given = [(0, 13), (14, 19), (20, 31), (32, 33), (len(text) - 20, len(text))]
    got = spans.token_steps(tokens, given)
    assert got.tolist() == brute_force(spans, tokens, given)
    assert set(got.tolist()) == {-1, 0, 1, 2, 3, 4}
