"""The evaluation's exact search against FAISS alone, which promises less.

    python -m benchmarks.exact_search

Both find the best 100 of the passages for every query, by inner product, with all threads. `faiss.knn` keeps any of
several passages with equal scores, and its fp32 scores depend on where a passage lies; ours do not.
The sides take turns; a row holds each side's median. Vectors are drawn, of length 1, with a direction in common as real
ones have. `same hits` is the share of hits that both find, at any place.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np
import pyarrow as pa

from benchmarks.common import RESULTS, Row, publish
from causalneg.console import Reporter
from causalneg.evaluation.search import exact_search

_PASSAGES, _QUERIES, _DIM, _DEPTH, _TURNS = 100_000, 1_000, 384, 100, 5
_QUICK_PASSAGES, _QUICK_QUERIES = 2_000, 20
_PEER = "faiss.knn"

Found = TypeVar("Found")


class _Held:
    """Vectors in memory, as a search takes them."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        return self._vectors[numbers]


def _draw(rows: int, generator: np.random.Generator) -> np.ndarray:
    vectors = generator.standard_normal((rows, _DIM), dtype=np.float32) + np.float32(0.5)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _timed(search: Callable[[], Found]) -> tuple[Found, tuple[float, float]]:
    """Return what is found, and the seconds that it took: of the clock and of all cores."""
    wall, cores = time.perf_counter(), time.process_time()
    found = search()
    return found, (time.perf_counter() - wall, time.process_time() - cores)


def main() -> None:
    """Measure and publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="not used: nothing is kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="few vectors: does it run")
    arguments = parser.parse_args()
    passages, queries = (_QUICK_PASSAGES, _QUICK_QUERIES) if arguments.quick else (_PASSAGES, _QUERIES)
    generator = np.random.default_rng(0)
    corpus, asked = _draw(passages, generator), _draw(queries, generator)
    ids, silent = pa.chunked_array([[f"{number:08d}" for number in range(passages)]]), Reporter(io.StringIO())
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for _ in range(_TURNS):
        hits, seconds = _timed(lambda: exact_search(asked, _Held(corpus), ids, _DEPTH, silent))
        ours.append(seconds)
        rows, seconds = _timed(lambda: faiss.knn(asked, corpus, _DEPTH, metric=faiss.METRIC_INNER_PRODUCT)[1])
        theirs.append(seconds)
    both = sum(len(set(map(int, own)) & set(of.tolist())) for own, of in zip(hits, rows, strict=True))
    table = []
    for at, metric in enumerate(("search", "search, all cores together")):
        our, their = (statistics.median(side[at] for side in sides) for sides in (ours, theirs))
        table.append(Row(metric, "s", our, _PEER, their, their / our))
    share = both / rows.size
    table.append(Row("same hits", "share", share, _PEER, 1.0, share))
    publish("exact_search", table, Reporter(), arguments.results)


if __name__ == "__main__":
    main()
