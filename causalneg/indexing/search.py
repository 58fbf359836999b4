"""Search in the vectors of an index version: its shards as one, exact where a mask leaves few rows to find."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from causalneg.indexing.kinds import Kind, Parameters, exhaustive, search_parameters, widened
from causalneg.indexing.manifest import IndexDamaged

if TYPE_CHECKING:
    import faiss

_MOST_TIES = 1024  # rows of equal score beyond the last hit among which the first ones are looked for

Found = tuple[np.ndarray, np.ndarray]  # scores float32 and rows int64, both [queries, hits]


def _in_order(scores: np.ndarray, rows: np.ndarray) -> Found:
    """Put equal scores in the order of rows; FAISS leaves them as its heap has them."""
    if not (scores[:, 1:] >= scores[:, :-1]).any():
        return scores, rows
    order = np.lexsort((rows, -scores))
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def _nearest(search: Callable[[int], Found], k: int, count: int) -> Found:
    """Return the `k` best of `count` rows; of rows with the same score the first.

    FAISS drops any of those that tie for the last place, so more are asked for until the tie is seen to end.
    """
    wide = min(k + 1, count)
    while True:
        scores, rows = _in_order(*search(wide))
        tied = wide > k and bool(((scores[:, k - 1] == scores[:, -1]) & (rows[:, -1] >= 0)).any())
        if not tied or wide == count or wide > k + _MOST_TIES:
            return scores[:, :k], rows[:, :k]
        wide = min(2 * wide, count)


def _padded(scores: np.ndarray, rows: np.ndarray, width: int) -> Found:
    """Add hits that are none until there are `width`."""
    lacking = width - rows.shape[1]
    if lacking <= 0:
        return scores, rows
    edges = ((0, 0), (0, lacking))
    return np.pad(scores, edges, constant_values=-np.inf), np.pad(rows, edges, constant_values=-1)


def plausible(scores: np.ndarray, rows: np.ndarray, count: int, folder: Path) -> Found:
    """Return what a search among `count` rows found, with -inf where it found none.

    Raises:
        IndexDamaged: it cannot be so.
    """
    lowest = rows.min()
    if lowest < -1 or rows.max() >= count:
        raise IndexDamaged(folder, "a search found a row that is not there")
    if lowest < 0:
        scores = np.where(rows < 0, np.float32(-np.inf), scores)
    if not np.isfinite(scores[rows >= 0] if lowest < 0 else scores).all():
        raise IndexDamaged(folder, "a search gave a score that is no number")
    return scores, rows


class ShardSearch(Protocol):
    """Search in a part of the index, whose rows count from 0; safe to use from several threads."""

    @property
    def rows(self) -> int:
        """How many it has."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        """Return the best rows, `min(k, rows)` of them; -1 and -inf where fewer of its own `allowed` are there."""


class LocalShard:
    """One FAISS index in this process."""

    def __init__(self, index: "faiss.Index", kind: Kind, parameters: Parameters, folder: Path) -> None:
        self.rows, self.dimension = index.ntotal, index.d
        self._index, self._kind, self._parameters, self._folder = index, kind, parameters, folder
        self._all_rows = search_parameters(kind, parameters)  # made once: it is the same for every search
        self._exhaustive = exhaustive(index, kind)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        """Return the best rows, `min(k, rows)` of them; -1 and -inf where fewer are allowed."""
        count, selector, rows = self.rows, None, self.rows
        if allowed is not None:
            count = int(np.count_nonzero(allowed))
            selector = _selector(allowed) if count < rows else None
        width, k = min(k, rows), min(k, count)
        if not count:
            return _padded(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64), width)
        narrow = self._all_rows
        if selector is not None:
            wider = widened(self._kind, self._parameters, count, rows)
            if wider is None:
                return _padded(*self._look_at_all(queries, k, count, selector), width)
            narrow = search_parameters(self._kind, wider, selector)
        found = _nearest(lambda n: self._ask(self._index, queries, n, narrow), k, count)
        lacking = np.flatnonzero(found[1][:, -1] < 0)
        if len(lacking):  # what was walked through held too few rows
            scores, numbers = self._look_at_all(queries[lacking], k, count, selector)
            found[0][lacking], found[1][lacking] = scores, numbers
        return _padded(*found, width)

    def _look_at_all(self, queries: np.ndarray, k: int, count: int, selector: "faiss.IDSelectorBitmap | None") -> Found:
        """Search every row that is allowed."""
        index, parameters = self._exhaustive
        found = _nearest(lambda n: self._ask(index, queries, n, parameters(selector)), k, count)
        if found[1].min() < 0:
            raise IndexDamaged(self._folder, "some of its vectors cannot be found")
        return found

    def _ask(self, index: "faiss.Index", queries: np.ndarray, k: int, parameters: "faiss.SearchParameters") -> Found:
        """Search one FAISS index, and let nothing out that cannot be so."""
        try:
            scores, rows = index.search(queries, k, params=parameters)
        except RuntimeError as error:
            raise IndexDamaged(self._folder, "its vectors cannot be searched") from error
        return plausible(scores, rows, self.rows, self._folder)


def _selector(mask: np.ndarray) -> "faiss.IDSelectorBitmap":
    import faiss

    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def _one_thread() -> None:
    import faiss

    faiss.omp_set_num_threads(1)


class VectorSearch:
    """The shards of a version, searched as one; safe to use from several threads.

    Args:
        shards: in the order of their rows.
        threads: that search shards side by side, none of them the one that calls; when unset, as many as OpenMP has
            in that one.
    """

    def __init__(self, shards: Sequence[ShardSearch], threads: int | None = None) -> None:
        self._shards, self._threads = list(shards), threads
        *self._starts, self.rows = accumulate((shard.rows for shard in shards), initial=0)
        self.dimension = shards[0].dimension
        alone = len(shards) == 1 and threads is None
        self._pool = None if alone else ThreadPoolExecutor(threads or len(shards), "shard", _one_thread)

    def search(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """Return the best rows of each vector, best first, equal scores in the order of rows.

        Args:
            vectors: float32 `[queries, dimension]`.
            k: rows per query; fewer come back when the index has fewer.
            allowed: bool `[rows]`, the rows that may be found; all when unset.

        Returns:
            scores float32 and rows int64, both `[queries, min(k, rows)]`; where fewer rows are allowed, -inf and -1.

        Raises:
            ValueError: the arrays have other shapes, a vector is not finite or of length 0, or `k` is below 1.
            IndexDamaged: a search gave what cannot be so.
        """
        queries = self._checked(vectors, k, allowed)
        k = min(k, self.rows)
        if not len(queries):
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        if self._pool is None:
            return self._shards[0].search(queries, k, allowed)
        parts = self._parts(self._pool, lambda number: self._search_shard(number, queries, k, allowed))
        scores, rows = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
        # A hit that is none has row -1 and the lowest score, so that it comes last.
        order = np.lexsort((rows, -scores))[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _search_shard(self, number: int, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        start, shard = self._starts[number], self._shards[number]
        mask = None if allowed is None else allowed[start : start + shard.rows]
        scores, rows = shard.search(queries, k, mask)
        return scores, np.where(rows < 0, rows, rows + start)

    def _parts(self, pool: ThreadPoolExecutor, search: Callable[[int], Found]) -> list[Found]:
        import faiss

        numbers = range(len(self._shards))
        threads = min(self._threads or faiss.omp_get_max_threads(), len(numbers))
        if threads == 1 and self._threads is None:
            return [search(number) for number in numbers]
        groups = [numbers[at::threads] for at in range(threads)]
        return [found for group in pool.map(lambda group: [search(n) for n in group], groups) for found in group]

    def _checked(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ValueError(f"vectors have shape {vectors.shape}, not [queries, {self.dimension}]")
        if k < 1:
            raise ValueError(f"k is {k}, not at least 1")
        if allowed is not None and (allowed.shape != (self.rows,) or allowed.dtype != np.bool_):
            raise ValueError(f"allowed is {allowed.dtype} {allowed.shape}, not bool [{self.rows}]")
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        squares = np.einsum("ij,ij->i", queries, queries)
        if not np.isfinite(squares).all():
            raise ValueError("a vector holds NaN or infinity")
        if not squares.all():
            raise ValueError("a vector has length 0")
        return queries


def local_search(indexes: Sequence["faiss.Index"], kind: Kind, parameters: Parameters, folder: Path) -> VectorSearch:
    """Return search in FAISS indexes of this process.

    Args:
        indexes: of the shards, in the order of their rows.
        kind: of all of them.
        parameters: of the search.
        folder: the version, for errors.
    """
    return VectorSearch([LocalShard(index, kind, parameters, folder) for index in indexes])
