"""Where in the tokens a stretch of the text lies: byte-level BPE, exact to the byte."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import decoders, pre_tokenizers

Span = tuple[int, int]


@dataclass(frozen=True)
class TokenSpans:
    """Maps character spans of decoded completions to tokens. Make one a tokenizer, with `of`.

    Attributes:
      pieces: the bytes that each token id stands for in the text; none for special tokens, which decoding skips.
    """

    pieces: tuple[bytes, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> "TokenSpans":
        """Of a fast tokenizer (`Processor.tokenizer.backend_tokenizer`).

        Raises:
          ValueError: the tokenizer is not a byte-level one.
        """
        if not isinstance(tokenizer.decoder, decoders.ByteLevel):
            raise ValueError(f"the tokenizer decodes by {tokenizer.decoder}, not byte by byte")
        byte_of = _byte_alphabet()
        added = tokenizer.get_added_tokens_decoder()
        pieces = [b""] * tokenizer.get_vocab_size(with_added_tokens=True)
        for text, number in tokenizer.get_vocab(with_added_tokens=True).items():
            if number not in added:
                pieces[number] = bytes(byte_of[char] for char in text)
            elif not added[number].special:
                pieces[number] = text.encode()
        return cls(tuple(pieces))

    def text(self, tokens: Sequence[int] | Int[np.ndarray, " N"]) -> str:
        """The tokens decoded, as `Processor.decode` does: bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.pieces[token] for token in tokens).decode(errors="replace")

    def token_steps(
        self, tokens: Sequence[int] | Int[np.ndarray, " N"], spans: Sequence[Span]
    ) -> Int[np.ndarray, " N"]:
        """The index of the span that each token belongs to, -1 for none.

        A token belongs to the first span that it has a byte of; one that makes no text belongs to none.

        Args:
          spans: of characters of the decoded text, in order and apart.

        Raises:
          ValueError: a span that is not in the text, or not behind the one before it.
        """
        pieces = [self.pieces[token] for token in tokens]
        places = _character_starts(b"".join(pieces))
        bounds = np.array(spans, np.int64).reshape(-1, 2)
        flat = bounds.reshape(-1)
        if len(flat) and (flat[0] < 0 or flat[-1] >= len(places) or (np.diff(flat) < 0).any()):
            raise ValueError(
                f"spans {list(spans)}: out of order, or outside a text of {len(places) - 1} characters"
            )
        filled = np.flatnonzero(bounds[:, 0] < bounds[:, 1])  # an empty span has no byte
        starts, ends = places[bounds[filled, 0]], places[bounds[filled, 1]]
        token_ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        token_starts = token_ends - [len(piece) for piece in pieces]
        first = np.searchsorted(ends, token_starts, side="right")  # the first span that ends behind its start
        inside = np.append(starts, np.iinfo(np.int64).max)[first] < token_ends
        step = np.append(filled, -1)[first]
        return np.where(inside & (token_ends > token_starts), step, -1).astype(np.int32)


def _byte_alphabet() -> dict[str, int]:
    """The byte behind each character of a byte-level vocabulary (GPT-2's `bytes_to_unicode`, inverted).

    Printable bytes stand for themselves, the others in order for the characters from U+0100 on.
    """
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    other = [b for b in range(256) if b not in printable]
    alphabet = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(other)}
    assert set(alphabet) == set(pre_tokenizers.ByteLevel.alphabet())
    return alphabet


def _character_starts(data: bytes) -> Int[np.ndarray, " C+1"]:
    """The byte at which each character of the decoded bytes begins, and their end."""
    if data.isascii():
        return np.arange(len(data) + 1)
    sizes: list[int] = []
    position = 0
    while position < len(data):
        broken = 0
        try:
            good = data[position:].decode()
        except UnicodeDecodeError as error:  # one U+FFFD in the text
            good, broken = data[position : position + error.start].decode(), error.end - error.start
        sizes += [len(char.encode()) for char in good] + [broken] * (broken > 0)
        position += sum(len(char.encode()) for char in good) + broken
    return np.cumsum([0, *sizes], dtype=np.int64)
