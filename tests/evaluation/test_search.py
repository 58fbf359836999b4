"""The evaluation's search: hits by id, whatever the shards and workers."""

import io

import numpy as np
import pyarrow as pa
import pytest
import vector_samples
from vector_samples import Held

from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.evaluation.search import exact_search
from causalneg.runtime import ray_session


def _data() -> tuple[np.ndarray, np.ndarray, list[str], pa.ChunkedArray]:
    rng = np.random.default_rng(3)
    # Small whole numbers: sums are exact, and many passages have equal scores.
    corpus = rng.integers(-1, 2, size=(97, 4)).astype(np.float32)
    queries = rng.integers(-1, 2, size=(5, 4)).astype(np.float32)
    ids = [f"p{n}" for n in rng.permutation(97)]
    return corpus, queries, ids, pa.chunked_array([ids[:40], ids[40:]])


@pytest.mark.parametrize("shard_passages", [1, 7, 1000])
@pytest.mark.parametrize("depth", [1, 5, 200])
def test_it_equals_brute_force_with_ties_by_id(report: Reporter, shard_passages: int, depth: int) -> None:
    corpus, queries, ids, column = _data()
    found = exact_search(queries, Held(corpus), column, depth, report, shard_passages)
    for query, hits in zip(queries, found, strict=True):
        scores = corpus @ query
        expected = sorted(range(97), key=lambda row: (-scores[row], ids[row]))[:depth]
        assert list(hits.items()) == [(ids[row], float(scores[row])) for row in expected]


@pytest.mark.ray
def test_shards_that_are_searched_side_by_side_give_the_same() -> None:
    corpus, queries, _, ids = _data()
    report = Reporter(io.StringIO())
    alone = exact_search(queries, Held(corpus), ids, 10, report)
    with ray_session():
        # Ray's workers do not know the tests' modules: this one goes to them with its class.
        import ray.cloudpickle

        ray.cloudpickle.register_pickle_by_value(vector_samples)
        assert exact_search(queries, Held(corpus), ids, 10, report, 20, workers=2) == alone


def test_vectors_that_do_not_fit_are_refused(report: Reporter) -> None:
    queries, ids = np.ones((1, 2), np.float32), pa.chunked_array([["a", "b"]])
    with pytest.raises(ValueError, match="2 passages"):
        exact_search(queries, Held(np.ones((3, 2), np.float32)), ids, 1, report)
    with pytest.raises(UserError, match="NaN"):
        exact_search(queries * np.nan, Held(np.ones((2, 2), np.float32)), ids, 1, report)
