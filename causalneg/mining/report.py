"""What mining found, as an object and as a page: scores, shortages, and an estimate of false negatives."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel

from causalneg.config import MineSettings
from causalneg.mining.filters import decide
from causalneg.records import Candidate, Mined, Relation, content_id

_BINS = 200


class LeftOut(BaseModel):
    """Known positives that were treated as unknown, and how many of them the filters then took as negatives.

    One is drawn of each query that has several. `low` and `high` bound the share with 95 % confidence (Wilson's
    interval).
    """

    positives: int
    taken: int
    low: float
    high: float


class Histogram(BaseModel):
    """Counts of scores in bins between `edges`."""

    edges: list[float]
    positives: list[int]
    candidates: list[int]
    kept: list[int]


class MiningReport(BaseModel):
    """What came out of mining.

    Attributes:
        queries: queries mined for.
        wanted: negatives asked for per query.
        candidates: candidates with a verdict.
        kept: negatives kept.
        short: queries with fewer than wanted.
        short_because: these queries by what took most of their candidates.
        verdicts: candidates by verdict or reason.
        kept_per_query: queries by how many negatives they have.
        found_by: kept negatives by the search that found them.
        scores: histogram of the scores the filters look at.
        left_out: estimate of false negatives from queries with several positives, if there are any.
        above_positives: share of the kept negatives that score above the lowest 5 % of all positives.
    """

    queries: int
    wanted: int
    candidates: int
    kept: int
    short: int
    short_because: dict[str, int]
    verdicts: dict[str, int]
    kept_per_query: dict[int, int]
    found_by: dict[str, int]
    scores: Histogram
    left_out: LeftOut | None
    above_positives: float


class Example(BaseModel):
    """A query with its positives and some of its candidates, for the page."""

    query: str
    positives: list[str]
    kept: list[tuple[float, str]]
    rejected: list[tuple[str, float, str]]


def _found_by(row: Mined) -> str:
    searches = [name for name, rank in (("bm25", row.bm25_rank), ("dense", row.dense_rank)) if rank is not None]
    return "judged" if row.relation is Relation.NEGATIVE else " and ".join(searches)


class Tally:
    """Counts while the queries pass by; its memory does not grow with them.

    Args:
        settings: the filters.
        seed: of the filters' draw.
        low: lowest score there is.
        high: highest score there is.
    """

    def __init__(self, settings: MineSettings, seed: int, low: float, high: float) -> None:
        self._settings, self._seed = settings, seed
        self._edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        self._counts = {name: np.zeros(_BINS, np.int64) for name in ("positives", "candidates", "kept")}
        self._verdicts: Counter[str] = Counter()
        self._kept_per_query: Counter[int] = Counter()
        self._short_because: Counter[str] = Counter()
        self._found_by: Counter[str] = Counter()
        self._left_out = self._left_out_taken = 0

    def add(
        self, candidates: Sequence[Candidate], decided: Sequence[Mined], signatures: Mapping[str, np.ndarray]
    ) -> None:
        """Count a query's candidates and what the filters made of them."""
        kept = [row for row in decided if row.verdict == "accepted"]
        found = [row for row in decided if row.was_found]
        reasons = Counter(row.rejected_by for row in found if row.rejected_by)
        positives = [c for c in candidates if c.relation is Relation.POSITIVE]
        others = [c for c in candidates if c.relation is not Relation.POSITIVE]
        self._verdicts.update(row.rejected_by or "accepted" for row in decided)
        self._kept_per_query[len(kept)] += 1
        self._found_by.update(map(_found_by, kept))
        if len(kept) < self._settings.num_negatives:
            self._short_because[reasons.most_common(1)[0][0] if reasons else "nothing_found"] += 1
        groups: dict[str, Sequence[Candidate]] = {"positives": positives, "candidates": others, "kept": kept}
        for name, rows in groups.items():
            self._counts[name] += np.histogram([row.score for row in rows], self._edges)[0]
        if len(positives) > 1:
            # One per query: positives of the same query stand or fall together, and the interval takes them as apart.
            drawn = random.Random(content_id(self._seed, candidates[0].query_id))  # noqa: S311
            positive = drawn.choice(sorted(positives, key=lambda c: c.passage_id))
            self._left_out += 1
            self._left_out_taken += positive.was_found and self._would_take(positive, candidates, signatures)

    def _would_take(
        self, positive: Candidate, candidates: Sequence[Candidate], signatures: Mapping[str, np.ndarray]
    ) -> bool:
        """Whether the filters took a positive as a negative if nobody had judged it."""
        unknown = positive.model_copy(update={"relation": Relation.UNJUDGED})
        rows = decide([unknown if c is positive else c for c in candidates], signatures, self._settings, self._seed)
        return any(r.passage_id == positive.passage_id and r.verdict == "accepted" for r in rows)

    def report(self) -> MiningReport:
        """Return what was counted."""
        kept_per_query = dict(sorted(self._kept_per_query.items()))
        counts = self._counts
        return MiningReport(
            queries=sum(kept_per_query.values()),
            wanted=self._settings.num_negatives,
            candidates=self._verdicts.total(),
            kept=self._verdicts["accepted"],
            short=self._short_because.total(),
            short_because=dict(self._short_because.most_common()),
            verdicts=dict(sorted(self._verdicts.items())),
            kept_per_query=kept_per_query,
            found_by=dict(self._found_by.most_common()),
            scores=Histogram(edges=self._edges.tolist(), **{name: rows.tolist() for name, rows in counts.items()}),
            left_out=_interval(self._left_out_taken, self._left_out) if self._left_out else None,
            above_positives=_share_above(counts["kept"], counts["positives"], 0.05),
        )


def _interval(taken: int, positives: int) -> LeftOut:
    from scipy.stats import binomtest

    interval = binomtest(taken, positives).proportion_ci(method="wilson")
    return LeftOut(positives=positives, taken=taken, low=float(interval.low), high=float(interval.high))


def _share_above(kept: np.ndarray, positives: np.ndarray, quantile: float) -> float:
    """Return the share of the kept that lie in bins above a quantile of the positives."""
    at = int(np.searchsorted(np.cumsum(positives), quantile * positives.sum()))
    return float(kept[at + 1 :].sum() / max(1, kept.sum()))
