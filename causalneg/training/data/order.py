"""In which order rows are trained on, and how they and their texts are shared out to workers."""

import heapq
from collections.abc import Sequence

import numpy as np

from causalneg.records import content_id


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Return the batches of an epoch; the last, short one counts."""
    return -(-rows // batch_size)


def row_order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return a permutation of `rows` numbers that depends on seed and epoch alone."""
    return np.random.default_rng(int(content_id("rows", seed, epoch), 16)).permutation(rows)


def shares(sizes: Sequence[int] | np.ndarray, workers: int) -> list[np.ndarray]:
    """Share out items so that the workers' totals are nearly equal: the largest first, to whoever has least.

    Args:
        sizes: of each item, tokens.
        workers: how many shares; some may be empty.

    Returns:
        positions into `sizes` of each share, int64, in rising order.
    """
    totals = [(0, 0, worker) for worker in range(workers)]  # tokens, items, worker
    taken: list[list[int]] = [[] for _ in range(workers)]
    for item in np.argsort(-np.asarray(sizes), kind="stable"):
        tokens, items, worker = heapq.heappop(totals)
        taken[worker].append(int(item))
        heapq.heappush(totals, (tokens + int(sizes[item]), items + 1, worker))
    return [np.array(sorted(share), np.int64) for share in taken]


def groups(sizes: Sequence[int] | np.ndarray, most: int) -> list[slice]:
    """Cut items into runs whose sizes add up to `most` at most, at least one item each."""
    found, start, total = [], 0, 0
    for item, size in enumerate(sizes):
        if item > start and total + size > most:
            found.append(slice(start, item))
            start, total = item, 0
        total += int(size)
    return [*found, slice(start, len(sizes))] if len(sizes) else []
