"""Chooses the kind of an index and the settings of its search by measuring recall, time and memory."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causalneg.config import IndexSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.indexing.fill import CorpusVectors, Filler
from causalneg.indexing.kinds import KINDS, Kind, Parameters, estimated_bytes
from causalneg.indexing.manifest import CurvePoint
from causalneg.indexing.search import VectorSearch, local_search

if TYPE_CHECKING:
    import faiss

EXACT_BELOW = 10_000  # rows; an exact search takes a millisecond or two there
_NEAREST = 10  # recall is that of so many
_COMPARED_ROWS = 50_000  # on which kinds are compared first
_NEAR = 2.0  # of the time of the fastest on these rows: a kind as fast as that may be the fastest on all rows
_TIMED_QUERIES, _TIMED_SECONDS = 50, 2.0  # per setting at most, whichever comes first
_NOISE = 3.0  # length of the noise in a query that is made up, that of the passage's vector being 1
_SEED = 0
_GIB = 1024**3


class Choice(NamedTuple):
    """What was chosen: filled indexes, how they are searched, and what was measured to find out."""

    kind: Kind
    parameters: Parameters
    recall: float | None
    curve: list[CurvePoint]
    indexes: "list[faiss.Index]"


class _HeldOut(NamedTuple):
    """Queries float32 `[queries, dimension]`, and their exact nearest rows int64 `[queries, nearest]`."""

    queries: np.ndarray
    nearest: np.ndarray

    def recall(self, rows: np.ndarray) -> float:
        """Return the share of the nearest rows that were found."""
        found = [len(np.intersect1d(a, b)) for a, b in zip(self.nearest, rows, strict=True)]
        return sum(found) / self.nearest.size


def needs_queries(settings: IndexSettings, rows: int) -> bool:
    """Whether recall is measured for an index of so many rows."""
    return settings.kind != "flat" and (settings.kind != "auto" or rows >= EXACT_BELOW)


def _made_up(corpus: CorpusVectors, count: int) -> np.ndarray:
    """Return passages' vectors under noise, which stand in for queries.

    With three times as much noise as signal, inverted lists find as many of the neighbours as for real queries, and a
    graph finds fewer (300 queries of MS MARCO, all-MiniLM-L6-v2); with as much as signal, both find far more.
    """
    vectors = corpus.sample(count, _SEED)
    noise = np.random.default_rng(_SEED).normal(size=vectors.shape)
    noise *= _NOISE * np.linalg.norm(vectors, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return (vectors + noise).astype(np.float32)


def _held_out(corpus: CorpusVectors, queries: np.ndarray) -> _HeldOut:
    """Find the exact nearest rows of the queries in one pass over the vectors."""
    import faiss

    k = min(_NEAREST, corpus.rows)
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    start = 0
    for block in corpus.blocks():
        there, found = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, rows = np.hstack([scores, there]), np.hstack([rows, found + start])
        order = np.lexsort((rows, -scores))[:, :k]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        start += len(block)
    return _HeldOut(queries, rows)


@contextmanager
def _one_thread() -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _milliseconds(search: VectorSearch, queries: np.ndarray) -> float:
    """Return the time of one query in one thread, the median."""
    taken: list[float] = []
    with _one_thread():
        for query in queries[:_TIMED_QUERIES, None]:
            started = time.perf_counter()
            search.search(query, _NEAREST)
            taken.append(time.perf_counter() - started)
            if sum(taken) > _TIMED_SECONDS:
                break
    return 1000 * statistics.median(taken)


class _Tuner:
    """Measures kinds of index; keeps the curve.

    Args:
        settings: the wanted recall among them.
        folder: the version, for errors.
    """

    def __init__(self, settings: IndexSettings, folder: Path) -> None:
        self.curve: list[CurvePoint] = []
        self._settings, self._folder = settings, folder

    def climb(self, filler: Filler, kind: Kind, held: _HeldOut) -> tuple[CurvePoint, "list[faiss.Index]"]:
        """Fill an index and try the settings of its search, the cheapest first, until one finds enough.

        Returns:
            That one, or else the one that found most; and the index.
        """
        started = time.perf_counter()
        indexes = filler.fill(kind)
        seconds = time.perf_counter() - started
        megabytes = estimated_bytes(kind, filler.shards, indexes[0].d) / 1e6
        points: list[CurvePoint] = []
        for parameters in KINDS[kind].ladder(max(filler.shards)):
            search = local_search(indexes, kind, parameters, self._folder)
            points.append(
                CurvePoint(
                    kind=kind,
                    parameters=parameters,
                    recall=round(held.recall(search.search(held.queries, held.nearest.shape[1])[1]), 4),
                    milliseconds=round(_milliseconds(search, held.queries), 4),
                    megabytes=round(megabytes, 3),
                    build_seconds=round(seconds, 3),
                    rows=sum(filler.shards),
                )
            )
            if points[-1].recall >= self._settings.recall:
                break
        self.curve += points
        return max(points, key=lambda point: point.recall), indexes

    def fastest(
        self, filler: Filler, kinds: Sequence[Kind], held: _HeldOut, keep: bool
    ) -> tuple[list[CurvePoint], "list[faiss.Index]"]:
        """Climb with several kinds.

        Returns:
            Those that find enough, the fastest first, and the index of the first if it is to be kept.
        """
        good: list[CurvePoint] = []
        kept: list[faiss.Index] = []
        for kind in kinds:
            if good and KINDS[kind].last_resort:
                continue
            point, indexes = self.climb(filler, kind, held)
            if point.recall < self._settings.recall:
                continue
            good = sorted([*good, point], key=lambda p: p.milliseconds)
            if keep and good[0] is point:
                kept = indexes
        return good, kept


def _fitting(settings: IndexSettings, shards: Sequence[int], dimension: int) -> list[Kind]:
    """Return the kinds that can be built for these shards in the memory that is allowed.

    Raises:
        UserError: none can.
    """
    rows, least = sum(shards), max(shards)
    possible = [k for k, s in KINDS.items() if least >= s.least_rows and rows <= (s.most_rows or rows)]
    size = {kind: estimated_bytes(kind, shards, dimension) / _GIB for kind in possible}
    fitting = [k for k in possible if settings.memory_gib is None or size[k] <= settings.memory_gib]
    if not fitting:
        smallest = min(possible, key=lambda kind: size[kind])
        raise UserError(
            f"index.memory_gib: {settings.memory_gib} GiB hold no index of {rows} passages; {smallest}, the smallest, "
            f"takes {size[smallest]:.3f} GiB."
        )
    return fitting


def _automatic(
    corpus: CorpusVectors, filler: Filler, held: _HeldOut, settings: IndexSettings, tuner: _Tuner
) -> tuple[CurvePoint, "list[faiss.Index]"]:
    """Take the fastest kind that finds enough.

    Kinds are compared on a sample where there are many rows, since building each of them in full would take long. Those
    near the fastest are built in full, two in memory at most, since time grows with the rows by kind: of a million rows
    a graph takes longer to search than inverted lists, of 50,000 less. Where none of them finds enough, the others are
    built, one after the other.

    Raises:
        UserError: none does.
    """
    fitting = _fitting(settings, filler.shards, held.queries.shape[1])
    if corpus.rows <= _COMPARED_ROWS:
        good, indexes = tuner.fastest(filler, fitting, held, keep=True)
        if good:
            return good[0], indexes
    else:
        drawn = corpus.sample(_COMPARED_ROWS, _SEED)
        sample = CorpusVectors(lambda: [drawn], len(drawn))
        compared = Filler(sample, [len(drawn)], settings.gpu)
        good, _ = tuner.fastest(compared, fitting, _held_out(sample, held.queries), keep=False)
        near = [point.kind for point in good if point.milliseconds <= _NEAR * good[0].milliseconds]
        full, indexes = tuner.fastest(filler, near, held, keep=True)
        if full:
            return full[0], indexes
        for candidate in good[len(near) :]:
            point, indexes = tuner.climb(filler, candidate.kind, held)
            if point.recall >= settings.recall:
                return point, indexes
    best = sorted(tuner.curve, key=lambda point: -point.recall)[:3]
    reached = ", ".join(f"{p.kind} {p.recall:.3f} with {p.megabytes:.0f} MB" for p in best)
    raise UserError(
        f"index.recall: nothing that fits into index.memory_gib ({settings.memory_gib}) finds {settings.recall} of the "
        f"{_NEAREST} nearest passages (best: {reached}); allow more memory or want less."
    )


def _written(parameters: Parameters) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items())


def _show(curve: list[CurvePoint], report: Reporter) -> None:
    """Print the last setting that was tried of each kind: the one that found enough, or else the dearest."""
    last = {(point.kind, point.rows): point for point in curve}.values()
    header = ["kind", "search", "recall@10", "ms a query", "MB", "built in s", "rows"]
    rows = [
        [
            p.kind,
            _written(p.parameters),
            f"{p.recall:.3f}",
            f"{p.milliseconds:.2f}",
            f"{p.megabytes:.1f}",
            f"{p.build_seconds:.1f}",
            f"{p.rows:,}",
        ]
        for p in last
    ]
    report.table("What recall costs", header, rows)


def choose(
    corpus: CorpusVectors,
    shards: Sequence[int],
    settings: IndexSettings,
    queries: np.ndarray | None,
    folder: Path,
    report: Reporter,
) -> Choice:
    """Choose kind and search of an index, and fill it.

    Args:
        corpus: the vectors.
        shards: rows of each shard.
        settings: the kind, or `auto`; the wanted recall; the memory.
        queries: held-out queries, float32 `[queries, dimension]`; made up from the corpus when unset.
        folder: the version, for errors.
        report: says what was chosen and why.

    Raises:
        UserError: the settings cannot be met.
    """
    filler = Filler(corpus, shards, settings.gpu)
    if not needs_queries(settings, corpus.rows):
        return Choice("flat", {}, 1.0, [], filler.fill("flat"))
    if queries is None:
        queries = _made_up(corpus, settings.tune_queries)
    held = _held_out(corpus, queries)
    tuner = _Tuner(settings, folder)
    if settings.kind == "auto":
        point, indexes = _automatic(corpus, filler, held, settings, tuner)
        _show(tuner.curve, report)
    else:
        point, indexes = tuner.climb(filler, settings.kind, held)
    what = " with ".join(filter(None, [point.kind, _written(point.parameters)]))
    report.line(
        f"index: {what} finds {point.recall:.3f} of the "
        f"{_NEAREST} nearest passages of {len(queries)} held-out queries, {point.milliseconds:.2f} ms a query in one "
        f"thread, {point.megabytes:.1f} MB"
    )
    if point.recall < settings.recall:
        report.line(
            f"index: that is less than index.recall, {settings.recall}; another index.kind finds more", style="yellow"
        )
    return Choice(point.kind, point.parameters, point.recall, tuner.curve, indexes)
