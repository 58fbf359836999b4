"""Decides on candidates by their stored scores alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from causalneg.margins import relative_score
from causalneg.records import Mined

RRF_CONSTANT = 60  # of reciprocal rank fusion, as in Cormack et al., SIGIR 2009


@dataclass(frozen=True)
class Candidate:
    """A passage found for a query, before any decision. Ranks start at 1."""

    passage_id: str
    bm25_rank: int | None
    bm25_score: float | None
    dense_rank: int | None
    dense_score: float


def fused_score(candidate: Candidate) -> float:
    """Reciprocal rank fusion of the BM25 and the dense rank."""
    ranks = (candidate.bm25_rank, candidate.dense_rank)
    return sum(1 / (RRF_CONSTANT + rank) for rank in ranks if rank is not None)


def decide(
    query_id: str,
    candidates: Iterable[Candidate],
    positives: Sequence[str],
    positive_score: float,
    relative_margin: float,
    num_negatives: int,
) -> list[Mined]:
    """Turn a query's candidates into mined rows, the best first, each with its verdict.

    Known positives go, then what scores too near the positive, then all after the first `num_negatives`.
    """
    rows: list[Mined] = []
    accepted = 0
    for candidate in sorted(candidates, key=lambda c: (-fused_score(c), c.passage_id)):
        reason = None
        if candidate.passage_id in positives:
            reason = "known_positive"
        elif relative_score(candidate.dense_score, positive_score) >= relative_margin:
            reason = "relative_margin"
        elif accepted >= num_negatives:
            reason = "num_negatives"
        accepted += reason is None
        rows.append(
            Mined(
                query_id=query_id,
                passage_id=candidate.passage_id,
                bm25_rank=candidate.bm25_rank,
                bm25_score=candidate.bm25_score,
                dense_rank=candidate.dense_rank,
                dense_score=candidate.dense_score,
                positive_score=positive_score,
                verdict="rejected" if reason else "accepted",
                rejected_by=reason,
            )
        )
    return rows
