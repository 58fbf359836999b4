"""Candidates: the dense search is exact, BM25 finds words."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.embedding import flat_index
from causalneg.errors import UserError
from causalneg.mining.candidates import search_bm25, search_dense

CORPUS = [
    "The lunar module Eagle landed in the Sea of Tranquility.",
    "The command module stayed in orbit with Michael Collins.",
    "The carrier picked up the crew after the splashdown.",
    "Geologists study basalt from the mare.",
]


def unit(rng: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("parts", [[300], [1, 299], [100, 0, 100, 100]])
@pytest.mark.parametrize("depth", [1, 17, 300])
def test_dense_search_is_exact(parts: Sequence[int], depth: int) -> None:
    rng = np.random.default_rng(3)
    corpus, queries = unit(rng, 300, 24), unit(rng, 9, 24)
    hits = search_dense(flat_index(np.split(corpus, np.cumsum(parts)[:-1])), queries, depth)
    scores = queries.astype(np.float64) @ corpus.T.astype(np.float64)
    expected = np.argsort(-scores, axis=1)[:, :depth]
    np.testing.assert_array_equal(hits.rows, expected)
    np.testing.assert_allclose(hits.scores, np.take_along_axis(scores, expected, 1), atol=1e-6)


def test_dense_search_stops_at_the_corpus() -> None:
    rng = np.random.default_rng(3)
    hits = search_dense(flat_index([unit(rng, 4, 8)]), unit(rng, 2, 8), 50)
    assert hits.rows.shape == hits.scores.shape == (2, 4)
    assert [sorted(row) for row in hits.rows.tolist()] == [[0, 1, 2, 3]] * 2


def test_an_index_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="no passages"):
        flat_index([])


def test_bm25_finds_the_passage_with_the_words() -> None:
    hits = search_bm25(CORPUS, ["splashdown carrier", "Who was Collins?", "studying basalts"], 2)
    assert hits.rows[:, 0].tolist() == [2, 1, 3]
    assert (hits.scores[:, 0] > hits.scores[:, 1]).all()


def test_bm25_scores_fall_and_are_zero_without_a_common_word() -> None:
    hits = search_bm25(CORPUS, ["module", "zymurgy", "is it the", ""], 50)
    assert hits.rows.shape == (4, len(CORPUS))
    assert (np.diff(hits.scores, axis=1) <= 0).all()
    assert (hits.scores[0] > 0).sum() == 2
    assert not hits.scores[1:].any()


@pytest.mark.parametrize("corpus", [["the of", "is it"], ["", " "]])
def test_bm25_finds_nothing_in_a_corpus_without_words(corpus: list[str]) -> None:
    hits = search_bm25(corpus, ["moon", "sea"], 5)
    assert hits.rows.shape == hits.scores.shape == (2, 0)


@given(st.lists(st.text("ab ", max_size=8), min_size=1, max_size=6), st.text("ab ", max_size=6), st.integers(1, 9))
def test_bm25_names_each_row_once(corpus: list[str], query: str, depth: int) -> None:
    hits = search_bm25(corpus, [query], depth)
    found = hits.rows[0].tolist()
    assert len(found) == len(set(found)) <= min(depth, len(corpus))
    assert set(found) <= set(range(len(corpus)))
