"""Exact dense search, shard by shard: the same hits and scores however the corpus is cut.

FAISS multiplies in fp32, whose rounding depends on where a vector lies in a block, and keeps any of several passages
with equal scores. So it finds a few more than are wanted, and these are scored anew, each by itself, in fp64.
"""

from typing import Protocol

import numpy as np

from causalneg.hits import Hits, no_hits

_MORE = 32  # passages beyond the depth that are scored anew
_BLOCK_QUERIES = 16  # queries whose candidates' vectors are held at a time
_ROUNDING = 2.0**-24  # of fp32, relative


class Vectors(Protocol):
    """Vectors of numbered passages, as `features.CorpusFeatures` has them."""

    def __len__(self) -> int: ...

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return float32 `[numbers, dimension]`."""


def products(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the inner products of each query and its own candidates, each by itself in fp64, rounded to fp32.

    Args:
        vectors: float32 `[queries, candidates, dimension]`.
        queries: float32 `[queries, dimension]`.
    """
    found = np.einsum("qnd,qd->qn", vectors.astype(np.float64), queries.astype(np.float64))
    return found.astype(np.float32)


def _best(numbers: np.ndarray, scores: np.ndarray, depth: int) -> Hits:
    """Return the best of the candidates `[queries, candidates]`."""
    order = np.lexsort((numbers, -scores), axis=1)[:, :depth]
    return Hits(np.take_along_axis(numbers, order, 1), np.take_along_axis(scores, order, 1))


def _errors(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return how far an fp32 product of each query may be from the true one, however it was summed up."""
    longest = np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max())
    return (vectors.shape[1] + 4) * _ROUNDING * longest * np.linalg.norm(queries, axis=1)


def search(vectors: np.ndarray, queries: np.ndarray, depth: int, numbers: np.ndarray | None = None) -> Hits:
    """Return the passages with the largest inner products; equal ones in the order of the passages' numbers.

    Args:
        vectors: of the passages, float32 `[passages, dimension]`, finite.
        queries: float32 `[queries, dimension]`, finite.
        depth: passages per query.
        numbers: number of each passage, int64 `[passages]`; from 0 on in their order when unset.
    """
    import faiss

    if not len(vectors) or not len(queries):
        return no_hits(len(queries))
    numbers = np.arange(len(vectors)) if numbers is None else numbers
    depth, wide = min(depth, len(vectors)), min(depth + _MORE, len(vectors))
    rough, rows = faiss.knn(queries, vectors, wide, metric=faiss.METRIC_INNER_PRODUCT)
    blocks = [slice(start, start + _BLOCK_QUERIES) for start in range(0, len(queries), _BLOCK_QUERIES)]
    parts = [_best(numbers[rows[b]], products(vectors[rows[b]], queries[b]), depth) for b in blocks]
    found = Hits(np.concatenate([p.rows for p in parts]), np.concatenate([p.scores for p in parts]))
    if wide == len(vectors):
        return found
    # What was left out cannot belong to the best where it scores less by more than both products may be wrong.
    errors = _errors(vectors, queries)
    least = rough[:, depth - 1] - 2 * errors
    for query in np.flatnonzero(rough[:, -1] >= least):  # too many score nearly the same: look at all of them
        near = np.flatnonzero(vectors @ queries[query] >= least[query] - 2 * errors[query])
        best = _best(numbers[None, near], products(vectors[None, near], queries[query, None]), depth)
        found.rows[query], found.scores[query] = best.rows, best.scores
    return found


class ShardSearcher:
    """Searches shards of the corpus, each given as the range of its passages.

    Args:
        vectors: of the corpus, finite.
        queries: float32 `[queries, dimension]`, finite.
        depth: passages per query.
        numbers: number of each passage of the corpus, by which equal scores are ordered and which the hits hold,
            int64 `[passages]`; its place when unset.
    """

    def __init__(self, vectors: Vectors, queries: np.ndarray, depth: int, numbers: np.ndarray | None = None) -> None:
        self._vectors, self._queries, self._depth, self._numbers = vectors, queries, depth, numbers

    def __call__(self, shard: range) -> Hits:
        """Return the best passages of a shard."""
        places = np.arange(shard.start, shard.stop)
        numbers = places if self._numbers is None else self._numbers[places]
        return search(self._vectors.take(places), self._queries, self._depth, numbers)
