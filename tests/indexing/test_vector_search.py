"""Search over shards: exact where it should be, nothing that is not allowed, nothing that cannot be."""

from pathlib import Path
from typing import get_args

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_samples import asked, build, clustered, nearest, opened, recall

from causalneg.indexing import kinds
from causalneg.indexing.kinds import KINDS, Kind
from causalneg.indexing.manifest import IndexDamaged
from causalneg.indexing.search import VectorSearch, local_search
from causalneg.indexing.store import Index

ROWS = 3000
VECTORS = clustered(ROWS)
QUERIES = asked(VECTORS, 60)
APPROXIMATE = {"sq8": 0.95, "hnsw": 0.9, "ivf_sq8": 0.9, "ivf_rabitq": 0.85, "ivf_pq": 0.5}  # recall to be expected


@pytest.fixture(scope="module", params=[(kind, shards) for kind in get_args(Kind) for shards in (1, 3)], ids=str)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """A version of every kind, whole and in three shards."""
    kind, shards = request.param
    folder = tmp_path_factory.mktemp("index") / "v"
    build(folder, VECTORS, kind=kind, shards=shards, queries=asked(VECTORS, 50, seed=5), recall=0.9)
    return opened(folder)


def test_the_nearest_are_found_best_first(index: Index) -> None:
    scores, rows = index.search(QUERIES, 10)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    assert recall(rows, nearest(VECTORS, QUERIES, 10)) >= APPROXIMATE.get(index.manifest.kind, 1.0)
    assert (np.diff(scores) <= 0).all()
    assert ((rows >= 0) & (rows < ROWS)).all()
    assert [len(set(found)) for found in rows.tolist()] == [10] * len(QUERIES)


def test_a_batch_answers_as_its_queries_do(index: Index) -> None:
    _, together = index.search(QUERIES, 10)
    alone = np.concatenate([index.search(query, 10)[1] for query in QUERIES[:, None]])
    assert recall(together, alone) > 0.99  # a product of matrices rounds otherwise


def test_all_rows_come_out_when_as_many_are_asked_for(index: Index) -> None:
    scores, rows = index.search(QUERIES[:2], ROWS + 5)
    assert rows.shape == (2, ROWS)
    assert np.sort(rows, axis=1).tolist() == [list(range(ROWS))] * 2
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("share", [0.7, 0.3, 0.05, 0.002])
@pytest.mark.parametrize("where", ["anywhere", "together"])
@pytest.mark.parametrize("few", [0, 20_000])  # rows that are looked at one by one
def test_only_what_is_allowed_is_found(
    index: Index, share: float, where: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "_FEW", few)
    by = np.random.default_rng(9).random(ROWS) if where == "anywhere" else VECTORS @ VECTORS[7]
    allowed = by >= np.quantile(by, 1 - share)
    scores, rows = index.search(QUERIES, 10, allowed)
    count = min(10, int(allowed.sum()))
    assert rows.shape == (len(QUERIES), 10)
    assert (rows[:, :count] >= 0).all()  # however few there are, they are found
    assert allowed[rows[:, :count]].all()
    assert (rows[:, count:] == -1).all()
    assert np.isneginf(scores[:, count:]).all()
    expected = nearest(VECTORS, QUERIES, count, allowed)
    margin = 0.05 if few else 0.2  # these clusters are far apart, and a way through a graph rarely leads to another
    assert recall(rows[:, :count], expected) >= APPROXIMATE.get(index.manifest.kind, 1.0) - margin


def test_nothing_is_found_where_nothing_is_allowed(index: Index) -> None:
    scores, rows = index.search(QUERIES[:2], 3, np.zeros(ROWS, bool))
    assert rows.tolist() == [[-1] * 3] * 2
    assert np.isneginf(scores).all()


def test_no_queries_have_no_answers(index: Index) -> None:
    scores, rows = index.search(np.empty((0, VECTORS.shape[1]), np.float32), 3)
    assert scores.shape == rows.shape == (0, 3)


def _flat(vectors: np.ndarray, shards: int) -> VectorSearch:
    indexes = []
    for part in np.array_split(vectors, shards):
        indexes.append(faiss.IndexFlatIP(vectors.shape[1]))
        indexes[-1].add(part)
    return local_search(indexes, "flat", {}, Path("v"))


@given(
    numbers=st.lists(st.integers(1, 4), min_size=1, max_size=40),
    shards=st.integers(1, 4),
    k=st.integers(1, 45),
    seed=st.integers(0, 9),
)
def test_equal_scores_come_in_the_order_of_rows_in_any_shards(
    numbers: list[int], shards: int, k: int, seed: int
) -> None:
    vectors = np.array(numbers, np.float32)[:, None] * np.ones((1, 2), np.float32)
    allowed = np.random.default_rng(seed).random(len(numbers)) < 0.7
    search = _flat(vectors, min(shards, len(numbers)))
    queries = np.ones((2, 2), np.float32)
    k = min(k, len(numbers))
    assert search.search(queries, k)[1].tolist() == nearest(vectors, queries, k).tolist()
    found = search.search(queries, k, allowed)[1]
    expected = nearest(vectors, queries, k, allowed)
    assert found.tolist() == np.where(allowed[expected], expected, -1).tolist()


def test_shards_answer_as_one_index_does() -> None:
    whole, parts = _flat(VECTORS, 1), _flat(VECTORS, 5)
    for query in QUERIES[:, None]:
        scores, rows = whole.search(query, 10)
        other_scores, other_rows = parts.search(query, 10)
        assert rows.tolist() == other_rows.tolist()
        np.testing.assert_array_equal(scores, other_scores)


class _Broken:
    """An index that answers what it should not."""

    d, ntotal = 2, 4

    def __init__(self, answer: tuple[float, int] | None) -> None:
        self._answer = answer

    def search(self, x: np.ndarray, k: int, **_: object) -> tuple[np.ndarray, np.ndarray]:
        if self._answer is None:
            raise RuntimeError("in faiss")
        score, row = self._answer
        return np.full((len(x), k), score, np.float32), np.full((len(x), k), row)


@pytest.mark.parametrize("answer", [(1.0, 4), (1.0, -2), (1.0, 2**40), (np.nan, 1), (np.inf, 1), None])
def test_what_cannot_be_never_comes_out(answer: tuple[float, int] | None) -> None:
    search = local_search([_Broken(answer)], "flat", {}, Path("v"))
    with pytest.raises(IndexDamaged, match="index v is damaged"):
        search.search(np.ones((1, 2), np.float32), 2)


def test_every_kind_is_tried() -> None:
    assert set(KINDS) == set(get_args(Kind)) == {"flat", *APPROXIMATE}
