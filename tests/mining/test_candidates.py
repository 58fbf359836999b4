"""Candidates: the searches are exact, their hits are merged and joined without losing or doubling any."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.exact import search
from causalneg.hits import Hits, merge, no_hits
from causalneg.mining.candidates import Judged, join, to_table
from causalneg.records import Candidate, Relation, from_table


def unit(rng: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("parts", [[300], [1, 299], [100, 100, 100]])
@pytest.mark.parametrize("depth", [1, 17, 300, 400])
def test_dense_search_over_shards_is_exact(parts: Sequence[int], depth: int) -> None:
    rng = np.random.default_rng(3)
    corpus, queries = unit(rng, 300, 24), unit(rng, 9, 24)
    best, start = no_hits(len(queries)), 0
    for shard in np.split(corpus, np.cumsum(parts)[:-1]):
        best = merge(best, search(shard, queries, depth).shifted(start), depth)
        start += len(shard)
    scores = queries.astype(np.float64) @ corpus.T.astype(np.float64)
    expected = np.argsort(-scores, axis=1)[:, :depth]
    np.testing.assert_array_equal(best.rows, expected)
    np.testing.assert_allclose(best.scores, np.take_along_axis(scores, expected, 1), atol=1e-6)


ragged = st.lists(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0.5, 1.0, 2.0])), max_size=6), max_size=4)


def as_hits(rows: list[list[tuple[int, float]]]) -> Hits:
    width = max(map(len, rows), default=0)
    out = Hits(np.full((len(rows), width), -1), np.zeros((len(rows), width), np.float32))
    for at, row in enumerate(rows):
        for column, (number, score) in enumerate(sorted(dict(row).items(), key=lambda r: (-r[1], r[0]))):
            out.rows[at, column], out.scores[at, column] = number, score
    return out


@given(ragged, st.integers(1, 8), st.integers(0, 30))
def test_merging_is_taking_the_best_of_all(rows: list[list[tuple[int, float]]], depth: int, cut: int) -> None:
    rows = [list(dict(row).items()) for row in rows]
    low = as_hits([[hit for hit in row if hit[0] < cut] for row in rows])
    high = as_hits([[hit for hit in row if hit[0] >= cut] for row in rows])
    merged = merge(low, high, depth)
    for at, row in enumerate(rows):
        expected = sorted(row, key=lambda hit: (-hit[1], hit[0]))[:depth]
        there = merged.rows[at] >= 0
        assert list(zip(merged.rows[at][there].tolist(), merged.scores[at][there].tolist(), strict=True)) == expected


def test_joined_pairs_hold_ranks_scores_and_relations() -> None:
    found = {
        "bm25": Hits(np.array([[2, 0], [1, -1]]), np.array([[5.0, 3.0], [2.0, 0.0]], np.float32)),
        "dense": Hits(np.array([[0, 1], [3, 1]]), np.array([[0.5, 0.25], [0.75, 0.125]], np.float32)),
    }
    judged = Judged(np.array([0, 0, 1]), np.array([2, 4, 1]), np.array([True, False, True]))
    pairs = join(found, judged, passages=5)
    pairs.scores["dense"][np.isnan(pairs.scores["dense"])] = -1.0
    rows = from_table(Candidate, to_table(pairs, pa.array(["a", "b"]), pa.array(list("vwxyz"))))

    def row(query: str, passage: str, relation: Relation, *values: float | None) -> Candidate:
        bm25_rank, bm25_score, dense_rank, dense_score = values
        return Candidate(
            query_id=query,
            passage_id=passage,
            relation=relation,
            bm25_rank=bm25_rank,
            bm25_score=bm25_score,
            dense_rank=dense_rank,
            dense_score=dense_score,
        )

    assert rows == [
        row("a", "v", Relation.UNJUDGED, 2, 3.0, 1, 0.5),
        row("a", "w", Relation.UNJUDGED, None, None, 2, 0.25),
        row("a", "x", Relation.POSITIVE, 1, 5.0, None, -1.0),
        row("a", "z", Relation.NEGATIVE, None, None, None, -1.0),
        row("b", "w", Relation.POSITIVE, 1, 2.0, 2, 0.125),
        row("b", "y", Relation.UNJUDGED, None, None, 1, 0.75),
    ]
