"""Duplicates among the generated negatives of a whole data set, exact and near, without comparing all with all.

Two texts are duplicates where they are equal but for case, punctuation and white space, or where the Jaccard overlap of
their runs of three words reaches a threshold. Candidates come from MinHash signatures cut into bands (local hashing);
a pair just at the threshold is missed once in a thousand. A candidate is compared by its signature, then exactly.
The first of several wins: each duplicate is one of a text that stays, and of the earliest such text.
"""

import math
from functools import lru_cache

import numpy as np
import xxhash

from causalneg.duplicates import PERMUTATIONS, normalised, overlap, shingles, signatures

_MAX_MISSED = 1e-3  # chance to miss a pair that overlaps by just the threshold
_SLACK = 3.0  # standard errors by which a signature may fall short before the texts are not compared
# Texts that stay and share a band with the one at hand, compared at most; bounds the work on texts that are all alike
# but below the threshold. The earliest are compared, as they are the ones that would win.
_MAX_COMPARED = 512

_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # splitmix64


def signature_rows(texts: list[str]) -> np.ndarray:
    """Return the MinHash signatures of texts, their lower 16 bits, uint16 `[texts, PERMUTATIONS]`.

    Half the memory of full signatures; two unequal values agree once in 65,536.
    """
    return signatures(texts).astype(np.uint16)


# Where texts are all alike the same ones are compared again and again, and most of the time would go into splitting.
@lru_cache(maxsize=2 * _MAX_COMPARED)
def _shingles(text: str) -> frozenset[str]:
    return frozenset(shingles(text))


def text_overlap(a: str, b: str) -> float:
    """Return the exact Jaccard overlap of two texts' runs of three words, 0 to 1."""
    left, right = _shingles(a), _shingles(b)
    common = len(left & right)
    return common / (len(left) + len(right) - common)


def rows_per_band(threshold: float) -> int:
    """Return how many values of a signature make a band, so that a pair at the threshold is hardly ever missed.

    The more, the fewer pairs below the threshold become candidates. A pair of overlap t shares none of n bands of r
    rows with probability (1 - t^r)^n.

    Raises:
        ValueError: the threshold is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold of duplicates must lie above 0 and up to 1, not at {threshold}")
    fitting = [r for r in (32, 16, 8, 4, 2) if (1 - threshold**r) ** (PERMUTATIONS // r) <= _MAX_MISSED]
    return max(fitting, default=1)


def _digest(text: str) -> int:
    """Return a hash that texts share which are equal but for case, punctuation and white space."""
    return int(xxhash.xxh3_64_intdigest((normalised(text) or text.strip()).encode("utf-8", "surrogatepass")))


def _band_keys(rows: np.ndarray, band: int, size: int) -> np.ndarray:
    """Hash one band of each signature, uint64 `[texts]`."""
    keys = np.full(len(rows), band + 1, dtype=np.uint64)
    for column in rows[:, band * size : (band + 1) * size].T:
        keys = (keys ^ column) * _MIX_1
        keys = (keys ^ (keys >> np.uint64(29))) * _MIX_2
    return keys ^ (keys >> np.uint64(32))


class Deduplicator:
    """The texts that stay, by which it is told of another whether it duplicates one of them.

    It holds them with their signatures, about 2 kB each.

    Raises:
        ValueError: the threshold is not in (0, 1].
    """

    def __init__(self, threshold: float) -> None:
        self._threshold, self._size = threshold, rows_per_band(threshold)
        error = math.sqrt(threshold * (1 - threshold) / PERMUTATIONS)
        self._least = threshold - _SLACK * error - 1 / PERMUTATIONS
        self._rows = np.empty((64, PERMUTATIONS), dtype=np.uint16)
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._exact: dict[int, int] = {}
        self._buckets: dict[int, list[int]] = {}

    def find(self, text: str) -> str | None:
        """Return the id of the earliest text that stays and that this one duplicates, or None."""
        exact = self._exact.get(_digest(text))
        if exact is not None:
            return self._ids[exact]
        row = signature_rows([text])
        near = {at for bucket in self._buckets_of(row) for at in self._buckets.get(bucket, ())}
        numbers = sorted(near)[:_MAX_COMPARED]
        if not numbers:
            return None
        alike = np.flatnonzero(overlap(row[0], self._rows[numbers]) >= self._least)
        found = (numbers[at] for at in alike if text_overlap(text, self._texts[numbers[at]]) >= self._threshold)
        first = next(found, None)
        return None if first is None else self._ids[first]

    def add(self, id: str, text: str) -> None:  # noqa: A002 - rows have ids
        """Keep a text."""
        at, row = len(self._ids), signature_rows([text])
        if at == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[at] = row[0]
        self._ids.append(id)
        self._texts.append(text)
        self._exact.setdefault(_digest(text), at)
        for bucket in self._buckets_of(row):
            members = self._buckets.setdefault(bucket, [])
            if len(members) < _MAX_COMPARED:
                members.append(at)

    def _buckets_of(self, row: np.ndarray) -> list[int]:
        """Return the buckets that a signature, `[1, PERMUTATIONS]`, lies in: one for each band."""
        return [int(_band_keys(row, band, self._size)[0]) for band in range(PERMUTATIONS // self._size)]
