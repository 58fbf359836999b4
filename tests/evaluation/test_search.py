"""Exact search against brute force."""

import numpy as np
import pyarrow as pa
import pytest

from causalneg.errors import UserError
from causalneg.evaluation import search
from causalneg.evaluation.search import exact_search


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
@pytest.mark.parametrize("k", [1, 5, 200])
def test_it_equals_brute_force_with_ties(monkeypatch: pytest.MonkeyPatch, block_rows: int, k: int) -> None:
    monkeypatch.setattr(search, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(search, "_QUERY_ROWS", 2)
    rng = np.random.default_rng(3)
    # Small whole numbers: sums are exact, and many passages have equal scores.
    corpus = rng.integers(-1, 2, size=(97, 4)).astype(np.float32)
    queries = rng.integers(-1, 2, size=(5, 4)).astype(np.float32)
    ids = [f"p{n}" for n in rng.permutation(97)]
    blocks = np.array_split(corpus, [1, 20, 20, 50])
    found = exact_search(queries, blocks, pa.chunked_array([ids[:40], ids[40:]]), k)
    for query, hits in zip(queries, found, strict=True):
        scores = corpus @ query
        expected = sorted(range(97), key=lambda row: (-scores[row], ids[row]))[:k]
        assert list(hits.items()) == [(ids[row], float(scores[row])) for row in expected]


def test_vectors_that_do_not_fit_the_corpus_are_refused() -> None:
    queries, ids = np.ones((1, 2), np.float32), pa.array(["a", "b"])
    for rows in (1, 3):
        with pytest.raises(ValueError, match="2 passages"):
            exact_search(queries, [np.ones((rows, 2), np.float32)], ids, 1)
    with pytest.raises(UserError, match="NaN"):
        exact_search(queries, [np.array([[1, 1], [np.nan, 1]], np.float32)], ids, 1)
