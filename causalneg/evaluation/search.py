"""Exact search of a corpus of any size for the evaluation's queries."""

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.exact import ShardSearcher, Vectors
from causalneg.hits import merge_all
from causalneg.runtime import spread


def exact_search(
    queries: np.ndarray,
    vectors: Vectors,
    ids: pa.ChunkedArray,
    depth: int,
    report: Reporter,
    shard_passages: int = 200_000,
    workers: int = 1,
) -> list[dict[str, float]]:
    """Return the passages with the largest inner product for each query, best first, by id with their scores.

    Equal scores are in the order of passage ids. Neither shards nor workers change the result. Vectors of one shard
    per worker are in memory, and hits that grow with queries times depth.

    Args:
        queries: float32 `[queries, dimension]`.
        vectors: of the corpus, finite.
        ids: the corpus's passage ids, one per vector.
        depth: hits per query.
        report: shows the progress.
        shard_passages: passages searched at a time.
        workers: shards searched side by side in a Ray session.

    Raises:
        UserError: a query's vector is not finite.
        ValueError: there are not as many vectors as ids.
    """
    if len(vectors) != len(ids):
        raise ValueError(f"there are {len(ids)} passages, but vectors for {len(vectors)}")
    if not np.isfinite(queries).all():
        raise UserError("The encoder gave a query a vector with NaN or infinity; train it again or name another.")
    by_id = pc.sort_indices(ids).to_numpy()  # passages in the order of their ids, whose places are their numbers
    numbers = np.empty(len(ids), np.int64)
    numbers[by_id] = np.arange(len(ids))
    shards = [range(start, min(start + shard_passages, len(ids))) for start in range(0, len(ids), shard_passages)]
    make = partial(ShardSearcher, vectors, queries, depth, numbers)
    with report.meter("searching", len(shards), "shards") as meter:
        best = merge_all(spread(make, shards, workers), len(queries), depth, meter.advance)
    names = ids.take(pa.array(by_id[best.rows.ravel()])).to_pylist()
    width = best.rows.shape[1]
    return [
        dict(zip(names[at * width : (at + 1) * width], scores.tolist(), strict=True))
        for at, scores in enumerate(best.scores)
    ]
