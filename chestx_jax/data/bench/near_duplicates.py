"""Reports that say nearly the same: MinHash over word shingles (Broder 1997), candidates by bands."""

import re
import zlib
from collections import defaultdict

import numpy as np
from jaxtyping import UInt64

SHINGLE = 4  # words
THRESHOLD = 0.8
"""Share of equal MinHash values (it estimates the Jaccard similarity of the shingles) from which two reports
count as near-duplicates."""
_BANDS, _ROWS = 16, 4  # finds 0.8 with a probability of 0.9998 and 0.3 with one of 0.12
_PRIME = np.uint64(2**31 - 1)
_DRAW = np.random.default_rng(1997)
_SCALE = _DRAW.integers(1, int(_PRIME), (_BANDS * _ROWS, 1), dtype=np.uint64)
_SHIFT = _DRAW.integers(0, int(_PRIME), (_BANDS * _ROWS, 1), dtype=np.uint64)

Signature = UInt64[np.ndarray, " S"]


def signature(report: str) -> Signature:
    """MinHash of a report; case, digits, punctuation and "XXXX" (a publisher's blank) do not count."""
    words = [word for word in re.findall(r"[a-z]+", report.lower()) if set(word) != {"x"}]
    shingles = {" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}
    hashes = np.array([zlib.crc32(text.encode()) >> 1 for text in shingles], np.uint64)
    return ((_SCALE * hashes + _SHIFT) % _PRIME).min(axis=1)


class Crossings:
    """Counts the reports that nearly repeat one of another split."""

    def __init__(self) -> None:
        self._splits: dict[str, list[str]] = defaultdict(list)
        self._signatures: dict[str, list[Signature]] = defaultdict(list)
        self._seen: set[tuple[str, str]] = set()

    def add(self, split: str, study: str, report: str) -> None:
        """One study's report; further questions about the study do not count again."""
        if report and (split, study) not in self._seen:
            self._seen.add((split, study))
            self._splits[split].append(study)
            self._signatures[split].append(signature(report))

    def counts(self) -> dict[str, dict[str, int]]:
        """split -> {"reports": how many, "near <other>": how many of them nearly repeat one of split other};
        each pair of splits stands once, "train" comes first."""
        order = sorted(self._splits, key=lambda split: (split != "train", split))
        table: dict[str, dict[str, int]] = {}
        for place, split in enumerate(order):
            row = {"reports": len(self._splits[split])}
            for other in order[:place]:
                row[f"near {other}"] = _repeats(self._signatures[split], self._signatures[other])
            table[split] = row
        return table


def _repeats(asked: list[Signature], known: list[Signature]) -> int:
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for number, values in enumerate(known):
        for band, key in _keys(values):
            buckets[band, key].append(number)
    return sum(_has_near(values, known, buckets) for values in asked)


def _has_near(values: Signature, known: list[Signature], buckets: dict[tuple[int, bytes], list[int]]) -> bool:
    tried: set[int] = set()
    for key in _keys(values):
        for number in buckets.get(key, ()):
            if number not in tried:
                tried.add(number)
                if (values == known[number]).mean() >= THRESHOLD:
                    return True
    return False


def _keys(values: Signature) -> list[tuple[int, bytes]]:
    return [(band, values[band * _ROWS : (band + 1) * _ROWS].tobytes()) for band in range(_BANDS)]
