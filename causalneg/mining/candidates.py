"""Joins what the searches found for each query with what is judged for it."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from causalneg.hits import Hits
from causalneg.records import Candidate, Relation, arrow_schema

_RELATIONS = list(Relation)


@dataclass(frozen=True)
class Judged:
    """The judged pairs of some queries.

    Attributes:
        queries: number of the query, int64 `[pairs]`.
        passages: number of the passage in the corpus, int64 `[pairs]`.
        positive: whether the passage is a positive, bool `[pairs]`.
    """

    queries: np.ndarray
    passages: np.ndarray
    positive: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Every candidate of some queries once, by query and passage; all arrays are `[pairs]`.

    Attributes:
        queries: number of the query, ascending, int64.
        passages: number of the passage in the corpus, ascending within a query, int64.
        relations: position in `Relation`, int64.
        ranks: by search, from 1, 0 where it did not find the passage, int64.
        scores: by search, NaN where it did not find the passage, float64.
    """

    queries: np.ndarray
    passages: np.ndarray
    relations: np.ndarray
    ranks: dict[str, np.ndarray] = field(default_factory=dict)
    scores: dict[str, np.ndarray] = field(default_factory=dict)


def join(found: dict[str, Hits], judged: Judged, passages: int) -> Pairs:
    """Join hits and judgements into one list of pairs.

    Args:
        found: hits by search; their rows are numbers in the corpus, their queries the same.
        judged: of these queries.
        passages: size of the corpus.
    """
    keys_of: dict[str, np.ndarray] = {}
    for name, hits in found.items():
        keys = np.arange(len(hits.rows))[:, None] * passages + hits.rows
        keys_of[name] = np.where(hits.rows < 0, -1, keys)
    judged_keys = judged.queries * passages + judged.passages
    keys = np.unique(np.concatenate([judged_keys, *(k.ravel() for k in keys_of.values())]))
    keys = keys[keys >= 0]

    relations = np.full(len(keys), _RELATIONS.index(Relation.UNJUDGED))
    kind = np.where(judged.positive, _RELATIONS.index(Relation.POSITIVE), _RELATIONS.index(Relation.NEGATIVE))
    relations[np.searchsorted(keys, judged_keys)] = kind
    pairs = Pairs(keys // passages, keys % passages, relations)
    for name, hits in found.items():
        there = keys_of[name] >= 0
        at = np.searchsorted(keys, keys_of[name][there])
        pairs.ranks[name] = np.zeros(len(keys), np.int64)
        pairs.ranks[name][at] = np.nonzero(there)[1] + 1
        pairs.scores[name] = np.full(len(keys), np.nan)
        pairs.scores[name][at] = hits.scores[there]
    return pairs


def to_table(pairs: Pairs, query_ids: pa.Array, passage_ids: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return pairs as `Candidate` rows; what no search gave is null.

    Args:
        pairs: with scores of the dense search for every pair.
        query_ids: ids by the queries' numbers.
        passage_ids: ids of the corpus.
    """
    size = len(pairs.queries)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "query_id": query_ids.take(pa.array(pairs.queries)),
        "passage_id": passage_ids.take(pa.array(pairs.passages)),
        "relation": pa.array(np.array([r.value for r in _RELATIONS])[pairs.relations], pa.string()),
        "cross_score": pa.nulls(size, pa.float64()),
    }
    for name in ("bm25", "dense"):
        ranks = pairs.ranks.get(name, np.zeros(size, np.int64))
        scores = pairs.scores.get(name, np.full(size, np.nan))
        columns[f"{name}_rank"] = pa.array(ranks, mask=ranks == 0)
        columns[f"{name}_score"] = pa.array(scores, mask=np.isnan(scores) if name == "bm25" else None)
    schema = arrow_schema(Candidate)
    return pa.table([columns[n] for n in schema.names], schema=schema)
