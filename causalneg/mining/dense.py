"""The cosines of given pairs."""

from collections.abc import Iterator

import numpy as np

from causalneg.features import CorpusFeatures

_PAIR_ROWS = 16_384  # pairs whose vectors are held at a time


def _chunks(order: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(order), _PAIR_ROWS):
        yield order[start : start + _PAIR_ROWS]


def pair_scores(
    vectors: CorpusFeatures, queries: np.ndarray, query_rows: np.ndarray, passage_rows: np.ndarray
) -> np.ndarray:
    """Return the inner product of each pair, float32 `[pairs]`.

    Args:
        vectors: of the corpus.
        queries: float32 `[queries, dimension]`.
        query_rows: the query of each pair, int64 `[pairs]`.
        passage_rows: its passage's number in the corpus, int64 `[pairs]`.
    """
    scores = np.empty(len(query_rows), np.float32)
    for chunk in _chunks(np.argsort(passage_rows, kind="stable")):  # neighbours lie in the same block
        scores[chunk] = np.einsum("ij,ij->i", vectors.take(passage_rows[chunk]), queries[query_rows[chunk]])
    return scores
