"""Decides on candidates by their stored scores and signatures alone."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from causalneg.config import MineSettings
from causalneg.duplicates import overlap
from causalneg.errors import UserError
from causalneg.margins import relative_score
from causalneg.mining.sampling import take
from causalneg.records import Candidate, Mined, Relation

RRF_CONSTANT = 60  # of reciprocal rank fusion, as in Cormack et al., SIGIR 2009

Rule = Callable[[float, float, float], bool]

# Setting: whether (score, positive's score, value of the setting) leaves the candidate out.
SCORE_RULES: dict[str, Rule] = {
    "min_score": lambda score, positive, value: score < value,
    "max_score": lambda score, positive, value: score > value,
    "absolute_margin": lambda score, positive, value: score > positive - value,
    "relative_margin": lambda score, positive, value: relative_score(score, positive) > 1 - value,
}


def fused_score(candidate: Candidate) -> float:
    """Reciprocal rank fusion of the BM25 and the dense rank."""
    ranks = (candidate.bm25_rank, candidate.dense_rank)
    return sum(1 / (RRF_CONSTANT + rank) for rank in ranks if rank is not None)


def _rank(candidate: Candidate) -> tuple[bool, float, str]:
    """Order candidates: given negatives, then by cross-encoder where there is one, otherwise by fused ranks."""
    best = fused_score(candidate) if candidate.cross_score is None else candidate.cross_score
    return candidate.relation is not Relation.NEGATIVE, -best, candidate.passage_id


class _Filters:
    """The filters of one query, asked for its candidates in the order of their ranks.

    Args:
        ordered: the candidates.
        positives: of the query.
        signatures: by passage; read where `near_duplicate` is set.
        settings: thresholds.
    """

    def __init__(
        self,
        ordered: Sequence[Candidate],
        positives: Sequence[Candidate],
        signatures: Mapping[str, np.ndarray],
        settings: MineSettings,
    ) -> None:
        self._ordered, self._settings = ordered, settings
        self.positive_score = min(p.score for p in positives)
        self.passed: list[int] = []
        self._seen = self._left = 0  # unjudged candidates looked at; those that the scores left
        if settings.near_duplicate is not None and ordered:
            self._rows = np.stack([signatures[c.passage_id] for c in ordered])
            self._positives = np.stack([signatures[p.passage_id] for p in positives])

    def reason(self, at: int) -> str | None:
        """Return why the candidate at a position is left out; None, and it is among those that passed."""
        relation = self._ordered[at].relation
        if relation is Relation.POSITIVE:
            return "known_positive"
        exempt = relation is Relation.NEGATIVE
        reason = (None if exempt else self._range_and_score(at)) or self._repeats(at)
        if reason is None:
            self.passed.append(at)
        return reason

    def _range_and_score(self, at: int) -> str | None:
        self._seen += 1
        if self._settings.range_max is not None and self._seen > self._settings.range_max:
            return "rank_range"
        score = self._ordered[at].score
        for name, rule in SCORE_RULES.items():
            value = getattr(self._settings, name)
            if value is not None and rule(score, self.positive_score, value):
                return name
        self._left += 1
        return "rank_range" if self._left <= self._settings.range_min else None

    def _repeats(self, at: int) -> str | None:
        least = self._settings.near_duplicate
        enough = self._settings.sampling == "top" and len(self.passed) >= self._settings.num_negatives
        if least is None or enough:  # what comes after enough is not taken anyway
            return None
        if (overlap(self._rows[at], self._positives) >= least).any():
            return "duplicate_of_positive"
        if self.passed and (overlap(self._rows[at], self._rows[self.passed]) >= least).any():
            return "duplicate_of_negative"
        return None


def decide(
    candidates: Sequence[Candidate], signatures: Mapping[str, np.ndarray], settings: MineSettings, seed: int
) -> list[Mined]:
    """Turn the candidates of one query into mined rows, the best first, each with its verdict.

    A candidate is left out by the first of these that applies: it is a known positive; it ranks after `range_max`
    others; its score breaks one of `SCORE_RULES`; it is one of the best `range_min` that those left; it nearly
    repeats a positive, or a negative that ranks before it; it is not among those that are taken. Negatives that a
    person judged or gave are exempt from range and scores, and are taken first.

    Args:
        candidates: of one query, with all its positives.
        signatures: MinHash signature by passage; read where `near_duplicate` is set.
        settings: thresholds.
        seed: of the draw, where negatives are drawn.

    Raises:
        UserError: a score is not a number.
        ValueError: the query's positives are not there.
    """
    query_id = candidates[0].query_id
    for candidate in candidates:
        if not math.isfinite(candidate.score):
            raise UserError(
                f"The score of passage {candidate.passage_id!r} for query {query_id!r} is {candidate.score}; "
                "take another encoder or cross-encoder."
            )
    positives = [c for c in candidates if c.relation is Relation.POSITIVE]
    if not positives:
        raise ValueError(f"the candidates of query {query_id!r} lack its positives")
    ordered = sorted(candidates, key=_rank)
    filters = _Filters(ordered, positives, signatures, settings)
    reasons = [filters.reason(at) for at in range(len(ordered))]
    given = [at for at in filters.passed if ordered[at].relation is Relation.NEGATIVE][: settings.num_negatives]
    others = [at for at in filters.passed if ordered[at].relation is Relation.UNJUDGED]
    scores = [ordered[at].score for at in others]
    drawn = take(scores, settings.num_negatives - len(given), settings.sampling, seed, query_id)
    taken = {*given, *(others[place] for place in drawn)}
    for at in filters.passed:
        if at not in taken:
            reasons[at] = "num_negatives"
    return [
        Mined(
            **candidate.model_dump(),
            positive_score=filters.positive_score,
            verdict="rejected" if reason else "accepted",
            rejected_by=reason,
        )
        for candidate, reason in zip(ordered, reasons, strict=True)
    ]
