"""Exact search: the hits and scores of brute force, whatever the cut and however many scores are equal."""

from collections.abc import Callable

import numpy as np
import pytest
from vector_samples import Held

from causalneg.exact import ShardSearcher, search
from causalneg.hits import merge_all


def brute(vectors: np.ndarray, queries: np.ndarray, depth: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = np.einsum("nd,qd->qn", vectors.astype(np.float64), queries.astype(np.float64)).astype(np.float32)
    order = np.lexsort((np.broadcast_to(numbers, scores.shape), -scores), axis=1)[:, :depth]
    return numbers[order], np.take_along_axis(scores, order, 1)


def few_scores(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.integers(-1, 2, shape).astype(np.float32)


def many_scores(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def copies(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.repeat(rng.normal(size=(-(-shape[0] // 60), shape[1])).astype(np.float32), 60, axis=0)[: shape[0]]


def alike(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return (1 + 1e-7 * rng.normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("make", [few_scores, many_scores, copies, alike])
@pytest.mark.parametrize("cuts", [[], [1, 2, 150], [100, 200]])
@pytest.mark.parametrize("depth", [1, 20, 297, 400])
def test_it_is_brute_force_for_any_cut(
    make: Callable[[np.random.Generator, tuple[int, int]], np.ndarray], cuts: list[int], depth: int
) -> None:
    rng = np.random.default_rng(3)
    vectors, queries = make(rng, (297, 8)), make(rng, (19, 8))
    numbers = rng.permutation(297)
    searcher = ShardSearcher(Held(vectors), queries, depth, numbers)
    shards = [range(start, end) for start, end in zip([0, *cuts], [*cuts, 297], strict=True)]
    found = merge_all(map(searcher, reversed(shards)), len(queries), depth, lambda: None)
    rows, scores = brute(vectors, queries, depth, numbers)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.scores, scores)


def test_places_are_the_numbers_unless_others_are_given() -> None:
    vectors = np.ones((50, 4), np.float32)
    assert search(vectors, vectors[:2], 3).rows.tolist() == [[0, 1, 2]] * 2
    assert ShardSearcher(Held(vectors), vectors[:1], 2)(range(40, 50)).rows.tolist() == [[40, 41]]


@pytest.mark.parametrize(("passages", "queries"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_is_found_where_there_is_nothing(passages: int, queries: int) -> None:
    found = search(np.empty((passages, 4), np.float32), np.empty((queries, 4), np.float32), 5)
    assert found.rows.shape == (queries, 0)
