"""Finds candidates: BM25 with bm25s, dense with FAISS."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import faiss


@dataclass(frozen=True)
class Hits:
    """The best passages of each query.

    Attributes:
        rows: row numbers in the corpus, int64 `[queries, depth]`.
        scores: float32 `[queries, depth]`, falling.
    """

    rows: np.ndarray
    scores: np.ndarray


def search_bm25(corpus: Sequence[str], queries: Sequence[str], depth: int) -> Hits:
    """Search with BM25 over stemmed English words."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    words = bm25s.tokenize(list(corpus), stopwords="en", stemmer=stemmer, show_progress=False)
    if not any(words.ids):  # nothing but stop words: bm25s cannot index that
        none = (len(queries), 0)
        return Hits(np.empty(none, dtype=np.int64), np.empty(none, dtype=np.float32))
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    tokens = bm25s.tokenize(list(queries), stopwords="en", stemmer=stemmer, show_progress=False)
    rows, scores = index.retrieve(tokens, k=min(depth, len(corpus)), show_progress=False)
    return Hits(np.asarray(rows, dtype=np.int64), np.asarray(scores, dtype=np.float32))


def search_dense(index: "faiss.IndexFlatIP", queries: np.ndarray, depth: int) -> Hits:
    """Search an exact index with query vectors, float32 `[queries, dimension]`."""
    scores, rows = index.search(queries, min(depth, index.ntotal))
    return Hits(rows, scores)
