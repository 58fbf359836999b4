"""What answers a search: an index version with the changes that were made since it was built.

What was put in lies in a small matrix that is searched exactly; what was taken away or replaced is kept from coming
out of the version. A merge makes a version of both, which answers the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from causalneg.errors import UserError
from causalneg.filters import Filter
from causalneg.indexing.changes import Change, latest
from causalneg.indexing.lexical import Lexical
from causalneg.indexing.metadata import MetadataTable
from causalneg.indexing.store import Index, is_among
from causalneg.records import Passage

_RRF_K = 60  # of reciprocal rank fusion (Cormack et al., 2009)
_RRF_DEPTH = 100  # hits of each list that are fused at first

Encode = Callable[[list[str]], np.ndarray]  # texts of passages to float32 [texts, dimension]


class Hit(NamedTuple):
    """A passage found. `place` says to its own view where it lies."""

    id: str
    score: float
    place: int


class _Added(NamedTuple):
    """A passage that was put in, and its vector, float32 `[dimension]`."""

    passage: Passage
    vector: np.ndarray


@dataclass(frozen=True, eq=False)
class _Delta:
    """The passages that were put in, by their ids, in the order of their changes."""

    added: Mapping[str, _Added]

    @cached_property
    def passages(self) -> list[Passage]:
        return [entry.passage for entry in self.added.values()]

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 `[passages, dimension]`."""
        return np.stack([entry.vector for entry in self.added.values()])

    @cached_property
    def metadata(self) -> MetadataTable:
        columns = ([getattr(p, name) for p in self.passages] for name in ("metadata", "id"))
        return MetadataTable(*(pa.chunked_array([pa.array(values, pa.string())]) for values in columns))


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Return where the `k` highest scores stand, the best first, equal ones in their order."""
    if len(scores) > k:
        found = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    else:
        found = np.arange(len(scores))
    return found[np.argsort(-scores[found], kind="stable")][:k]


@dataclass(frozen=True, eq=False)
class View:
    """An index version and changes; it never changes itself, and may be searched by several threads.

    Attributes:
        index: the version.
        change: number of the last change that the view knows.
    """

    index: Index
    change: int
    _metadata: MetadataTable
    _lexical: Lexical | None
    _live: np.ndarray | None  # bool [rows of the version]; None while all of them are
    _delta: _Delta

    @classmethod
    def open(cls, index: Index) -> Self:
        """Return a version as it was built."""
        passages, folder = index.passages, index.lexical_folder
        return cls(
            index=index,
            change=index.manifest.change,
            _metadata=MetadataTable(passages.metadata, passages.ids),
            _lexical=Lexical.open(folder) if folder is not None else None,
            _live=None,
            _delta=_Delta({}),
        )

    @property
    def version(self) -> str:
        """Name of the version."""
        return self.index.manifest.version

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self.index.manifest.dimension

    @property
    def has_lexical(self) -> bool:
        """Whether hybrid search is possible."""
        return self._lexical is not None

    @property
    def rows(self) -> int:
        """Number of passages that can be found."""
        kept = len(self.index.passages) if self._live is None else int(np.count_nonzero(self._live))
        return kept + len(self._delta.added)

    # Changing

    def with_changes(self, changes: Iterable[Change], encode: Encode) -> Self:
        """Return the view after some more changes, the last of each id; those that it knows are passed over.

        Args:
            changes: in the order of their numbers.
            encode: gives the vectors of passages that another encoder than the version's was asked for.

        Raises:
            ValueError: a vector has another size than the version's, is not finite, or has length 0.
        """
        new = latest(change for change in changes if change.number > self.change)
        if not new:
            return self
        ids = {change.id for change in new}
        added = {name: entry for name, entry in self._delta.added.items() if name not in ids}
        upserts = [change for change in new if change.kind == "upsert"]
        added |= zip((c.id for c in upserts), self._added(upserts, encode), strict=True)
        live = np.ones(len(self.index.passages), bool) if self._live is None else self._live.copy()
        live[is_among(self.index.passages.ids, ids)] = False
        return replace(
            self,
            change=new[-1].number,
            _live=None if live.all() else live,
            _delta=_Delta(added),
        )

    def _added(self, upserts: Sequence[Change], encode: Encode) -> list[_Added]:
        others = [c for c in upserts if c.model != self.index.manifest.model.fingerprint]
        encoded = iter(encode([c.passage.full_text for c in others]) if others else ())
        own = self.index.manifest.model.fingerprint
        return [_Added(c.passage, self._checked(c.id, c.array() if c.model == own else next(encoded))) for c in upserts]

    def _checked(self, passage_id: str, vector: np.ndarray) -> np.ndarray:
        if vector.shape != (self.dimension,):
            raise ValueError(f"the vector of {passage_id!r} has shape {vector.shape}, not [{self.dimension}]")
        square = float(vector @ vector)
        if not np.isfinite(square) or not square:
            raise ValueError(f"the vector of {passage_id!r} is not finite or has length 0")
        return np.asarray(vector, np.float32)

    # Searching

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        *,
        texts: Sequence[str] | None = None,
        filter: Filter | None = None,  # noqa: A002 - as requests call it
    ) -> list[list[Hit]]:
        """Return the best passages of each query, best first, equal scores in the order of passages.

        More hits go on where fewer end. With texts, the dense list and that of BM25 are fused by their ranks. Passages
        that were put in stand in the list of BM25 only after a merge; those that were taken away or replaced are in
        neither.

        Args:
            vectors: of the queries, float32 `[queries, dimension]`.
            k: passages per query, at least 1.
            texts: of the queries, for hybrid search.
            filter: what the passages' metadata must be.

        Raises:
            ValueError: a vector has another size, is not finite or has length 0, or `k` is below 1.
            UserError: the version has no BM25 index, and texts are given.
        """
        allowed, of_delta = self._live, None
        if filter is not None:
            mask = self._metadata.mask(filter)
            allowed = mask if allowed is None else mask & allowed
            of_delta = self._delta.metadata.mask(filter) if self._delta.added else None
        if texts is None:
            return [self._hits(*found) for found in self._dense(vectors, k, allowed, of_delta)]
        if self._lexical is None:
            raise UserError(f"Index version {self.version} has no BM25 index; run `causalneg index --lexical true`.")
        if k < 1 or len(texts) != len(vectors):
            raise ValueError(f"{len(texts)} texts for {len(vectors)} vectors, k {k}")
        fused = [_Fusion() for _ in texts]
        depth = _RRF_DEPTH
        while True:
            dense = self._dense(vectors, depth, allowed, of_delta)
            lexical = self._lexical.search(texts, depth, allowed)[1]
            for fusion, (_, rows), words in zip(fused, dense, lexical, strict=True):
                fusion.extend((rows, words), depth)
            if all(fusion.is_whole or len(fusion.places) >= k for fusion in fused):
                return [self._hits(np.array(f.scores[:k]), np.array(f.places[:k])) for f in fused]
            depth *= 2

    def _dense(
        self, vectors: np.ndarray, k: int, allowed: np.ndarray | None, of_delta: np.ndarray | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return scores and places of each query's nearest passages; a delta's places follow the version's rows."""
        scores, rows = self.index.search(vectors, k, allowed)
        if not self._delta.added:
            return list(zip(scores, rows, strict=True))
        start = len(self.index.passages)
        added = np.asarray(vectors, np.float32) @ self._delta.vectors.T
        if of_delta is not None:
            added[:, ~of_delta] = -np.inf
        found = []
        for of_version, of_added, here in zip(scores, added, rows, strict=True):
            near = _best(of_added, k)
            # Those of the version stand first, as they will after a merge: of equal scores the same are taken.
            both = np.concatenate([of_version, of_added[near]])
            places = np.concatenate([here, np.where(np.isfinite(of_added[near]), start + near, -1)])
            order = _best(both, k)
            found.append((both[order], places[order]))
        return found

    def _hits(self, scores: np.ndarray, places: np.ndarray) -> list[Hit]:
        return [
            Hit(self._id(place), score, place)
            for score, place in zip(scores.tolist(), places.tolist(), strict=True)
            if place >= 0
        ]

    def _id(self, place: int) -> str:
        start = len(self.index.passages)
        return self.index.passages.id(place) if place < start else self._delta.passages[place - start].id

    # Reading

    def payload(self, hit: Hit) -> Passage:
        """Return the passage of a hit that this view found."""
        start = len(self.index.passages)
        return self.index.passages.get(hit.place) if hit.place < start else self._delta.passages[hit.place - start]

    def passage(self, passage_id: str) -> Passage | None:
        """Return the passage with an id; None where there is none, or no more."""
        if passage_id in self._delta.added:
            return self._delta.added[passage_id].passage
        for row in np.flatnonzero(is_among(self.index.passages.ids, [passage_id])).tolist():
            if self._live is None or self._live[row]:
                return self.index.passages.get(row)
        return None


class _Fusion:
    """Two lists fused by reciprocal rank, which is made longer without changing what it begins with.

    The deeper lists are looked into, the more a passage that stands in both gains on one that stands in one. So what is
    found deeper comes after what was there, and scores no higher.

    Attributes:
        places: in their order.
        scores: of these, never rising.
        is_whole: whether the lists have no more.
    """

    def __init__(self) -> None:
        self.places: list[int] = []
        self.scores: list[float] = []
        self.is_whole = False

    def extend(self, lists: Sequence[np.ndarray], depth: int) -> None:
        """Add what lists of so many places, best first and -1 for none, have beyond those before."""
        found: dict[int, float] = {}
        for places in lists:
            for rank, place in enumerate(places[places >= 0].tolist(), 1):
                found[place] = found.get(place, 0.0) + 1 / (_RRF_K + rank)
        there, highest = set(self.places), min(self.scores, default=np.inf)
        new = sorted((p for p in found if p not in there), key=lambda place: (-found[place], place))
        self.places += new
        self.scores += [min(found[place], highest) for place in new]
        self.is_whole = all(np.count_nonzero(places >= 0) < depth for places in lists)
