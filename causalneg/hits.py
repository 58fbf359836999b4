"""The best passages of each query, and how those of several shards become those of the corpus."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hits:
    """The best passages of each query, the best first.

    Attributes:
        rows: numbers of the passages, int64 `[queries, depth]`; -1 where there are fewer.
        scores: float32 `[queries, depth]`, falling.
    """

    rows: np.ndarray
    scores: np.ndarray

    def shifted(self, start: int) -> "Hits":
        """Number the passages from `start` on: a shard's numbers become those of the corpus."""
        return Hits(np.where(self.rows < 0, -1, self.rows + start), self.scores)


def no_hits(queries: int) -> Hits:
    """Return what is found where there is nothing."""
    return Hits(np.empty((queries, 0), np.int64), np.empty((queries, 0), np.float32))


def merge(one: Hits, other: Hits, depth: int) -> Hits:
    """Return the best of both; equal scores in the order of the passages' numbers."""
    rows = np.concatenate([one.rows, other.rows], axis=1)
    scores = np.concatenate([one.scores, other.scores], axis=1)
    order = np.lexsort((rows, np.where(rows < 0, np.inf, -scores)), axis=1)[:, :depth]
    return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))


def merge_all(parts: Iterable[Hits], queries: int, depth: int, after_each: Callable[[], None]) -> Hits:
    """Return the best of all parts, whatever their order; two of them are held at a time."""
    best = no_hits(queries)
    for hits in parts:
        best = merge(best, hits, depth)
        after_each()
    return best
