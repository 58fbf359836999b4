"""Exact search of a corpus whose vectors stream by, one block at a time."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg.errors import UserError

_BLOCK_ROWS = 16_384  # passages scored at once
_QUERY_ROWS = 256  # queries scored at once; with the above 16 MiB of scores


def _grouped(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Join small blocks, so that selection is not repeated for each of them."""
    waiting: list[np.ndarray] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= _BLOCK_ROWS:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _best(scores: np.ndarray, rows: np.ndarray, id_order: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of a query's candidates by score, then passage id."""
    if len(scores) > k:
        # Everything equal to the k-th score stays until ids decide.
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = np.flatnonzero(scores >= least)
        scores, rows = scores[kept], rows[kept]
    order = np.lexsort((id_order[rows], -scores))[:k]
    return scores[order], rows[order]


def exact_search(
    queries: np.ndarray, blocks: Iterable[np.ndarray], ids: pa.Array | pa.ChunkedArray, k: int
) -> list[dict[str, float]]:
    """Return the k passages with the largest inner product for each query, best first.

    Equal scores are in the order of passage ids. Memory grows with queries times k, not with the corpus.

    Args:
        queries: float32 `[queries, dimension]`.
        blocks: float32 `[rows, dimension]`; joined, one row per id.
        ids: the corpus's passage ids.
        k: hits per query.

    Raises:
        UserError: a vector is not finite.
        ValueError: the blocks do not have one row per id.
    """
    id_order = np.empty(len(ids), dtype=np.int64)
    id_order[pc.sort_indices(ids).to_numpy()] = np.arange(len(ids))
    best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
    start = 0
    for block in _grouped(blocks):
        rows = np.arange(start, start + len(block))
        start += len(block)
        if start > len(ids):
            break
        for first in range(0, len(queries), _QUERY_ROWS):
            scores = queries[first : first + _QUERY_ROWS] @ block.T
            if not np.isfinite(scores).all():
                raise UserError("The encoder gives vectors with NaN or infinity; train it again or name another.")
            for number, new in enumerate(scores, first):
                old_scores, old_rows = best[number]
                best[number] = _best(np.concatenate([old_scores, new]), np.concatenate([old_rows, rows]), id_order, k)
    if start != len(ids):
        raise ValueError(f"there are {len(ids)} passages, but vectors for {start} or more")
    return [{ids[int(row)].as_py(): float(score) for score, row in zip(*found, strict=True)} for found in best]
