"""The filters keep the negatives that sentence-transformers' `mine_hard_negatives` keeps, on random vectors."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from causalneg.config import MineSettings
from causalneg.mining.filters import decide
from causalneg.records import Candidate, Relation

QUERIES, PASSAGES, DIMENSION = 12, 120, 6  # so few dimensions that all thresholds meet something
NEGATIVES, RANGE = 8, 25


@dataclass(frozen=True)
class Data:
    """Vectors and positives as both sides see them.

    Attributes:
        vectors: by query and passage.
        cosines: float32 `[queries, passages]`.
        cross: scores of a cross-encoder, likewise.
        positives: numbers of the passages, by query.
    """

    vectors: dict[str, np.ndarray]
    cosines: np.ndarray
    cross: np.ndarray
    positives: list[set[int]]

    @property
    def most_positives(self) -> int:
        return max(map(len, self.positives))


def made(seed: int) -> Data:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(QUERIES + PASSAGES, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors[:QUERIES] @ vectors[QUERIES:].T
    positives = [
        set(rng.choice(np.argsort(-row)[:40], size=int(rng.integers(1, 4)), replace=False).tolist()) for row in cosines
    ]
    names = [f"q{n}" for n in range(QUERIES)] + [f"d{n}" for n in range(PASSAGES)]
    cross = rng.normal(size=cosines.shape).astype(np.float32)
    return Data(dict(zip(names, vectors, strict=True)), cosines, cross, positives)


class Encoder:
    """Looks vectors up, with the methods of a SentenceTransformer that are called."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        import torch

        self.device, self._vectors = torch.device("cpu"), vectors

    def encode_document(self, texts: list[str], **_: Any) -> np.ndarray:
        return np.stack([self._vectors[text] for text in texts])

    encode_query = encode_document

    def similarity(self, one: Any, other: Any) -> Any:  # noqa: ANN401 - tensors or arrays
        import torch

        return torch.as_tensor(one) @ torch.as_tensor(other).T

    def similarity_pairwise(self, one: Any, other: Any) -> Any:  # noqa: ANN401
        import torch

        return (torch.as_tensor(one) * torch.as_tensor(other)).sum(1)


class CrossEncoder:
    """Looks scores up, with the method of a CrossEncoder that is called."""

    def __init__(self, scores: np.ndarray) -> None:
        self._scores = scores

    def predict(self, pairs: list[tuple[str, str]], **_: Any) -> Any:  # noqa: ANN401
        import torch

        return torch.tensor([self._scores[int(query[1:]), int(passage[1:])] for query, passage in pairs])


def theirs(data: Data, changes: dict[str, Any], rescored: bool) -> list[set[str]]:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    pairs = [(f"q{query}", f"d{passage}") for query, own in enumerate(data.positives) for passage in sorted(own)]
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": [q for q, _ in pairs], "positive": [p for _, p in pairs]}),
        Encoder(data.vectors),
        corpus=[f"d{n}" for n in range(PASSAGES)],
        cross_encoder=CrossEncoder(data.cross) if rescored else None,
        num_negatives=NEGATIVES,
        range_max=RANGE,
        verbose=False,
        **changes,
    )
    kept: dict[str, set[str]] = defaultdict(set)
    for row in mined:
        kept[row["query"]].add(row["negative"])
    return [kept[f"q{query}"] for query in range(QUERIES)]


def ours(data: Data, changes: dict[str, Any], rescored: bool) -> list[set[str]]:
    # They look at `range_max` passages and as many more as a query has positives at most: our depth.
    depth = RANGE + data.most_positives
    chosen = {"relative_margin": None, "near_duplicate": None, "num_negatives": NEGATIVES} | changes
    kept = []
    for query, (row, own) in enumerate(zip(data.cosines, data.positives, strict=True)):
        ranks = {int(passage): rank for rank, passage in enumerate(np.argsort(-row)[:depth], 1)}
        candidates = [
            Candidate(
                query_id=f"q{query}",
                passage_id=f"d{passage}",
                relation=Relation.POSITIVE if passage in own else Relation.UNJUDGED,
                dense_rank=ranks.get(passage),
                dense_score=float(row[passage]),
                cross_score=float(data.cross[query, passage]) if rescored else None,
            )
            for passage in ranks.keys() | own
        ]
        rows = decide(candidates, {}, MineSettings.model_validate(chosen), 0)
        kept.append({r.passage_id for r in rows if r.verdict == "accepted"})
    return kept


@pytest.mark.parametrize("rescored", [False, True], ids=["cosines", "cross-encoder"])
@pytest.mark.parametrize(
    "changes",
    [
        {"relative_margin": 0.05},
        {"absolute_margin": 0.1},
        {"max_score": 0.5},
        {"min_score": 0.6},
        {"relative_margin": 0.05, "range_min": 3},
        {"max_score": 0.5, "range_min": 5},
        {"min_score": 0.2, "max_score": 0.7, "relative_margin": 0.1, "absolute_margin": 0.05, "range_min": 1},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_the_same_negatives_are_kept(changes: dict[str, Any], rescored: bool) -> None:
    for seed in range(3):
        data = made(seed)
        expected = theirs(data, changes, rescored)
        assert any(expected)
        assert ours(data, changes, rescored) == expected


@pytest.mark.parametrize("changes", [{}, {"range_min": 4}])
def test_the_same_negatives_are_kept_where_no_score_decides(changes: dict[str, Any]) -> None:
    # With a cross-encoder they leave it out here and keep the order of the cosines; we never leave it out.
    data = made(3)
    assert ours(data, changes, rescored=False) == theirs(data, changes, rescored=False)


def test_scores_below_zero_are_compared_as_they_compare_them() -> None:
    data = made(4)
    lowest = [{int(row.argmin())} for row in data.cosines]
    below = Data(data.vectors, data.cosines, data.cross - 5, lowest)  # every score of the cross-encoder is negative
    expected = theirs(below, {"relative_margin": 0.05}, rescored=True)
    assert any(expected)
    assert ours(below, {"relative_margin": 0.05}, rescored=True) == expected
