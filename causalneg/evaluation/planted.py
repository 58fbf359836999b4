"""Retrieval among planted counterfactuals: the accepted negatives of queries that were not trained on join the corpus.

Of queries that training held out, or that have no train pair, the encoder has seen none of these negatives. How
often one of them is ranked above the query's best positive says whether it learnt the distinction, not the texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from causalneg.config import EncodeSettings
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.evaluation.metrics import compute
from causalneg.evaluation.search import exact_search
from causalneg.evaluation.significance import interval
from causalneg.exact import products, search
from causalneg.features import CorpusFeatures
from causalneg.models import ResolvedModel
from causalneg.records import Negative, Qrel, Query, Record, full_text
from causalneg.vectors import embed_texts
from causalneg.workspace import HELD_OUT, Workspace

# Before the ids of planted passages: no id of the corpus is the same, and of equal scores theirs come first.
_MARK = "\0"


class Above(Record):
    """How planted passages rank against the positives of their queries; intervals are of 95 %.

    Attributes:
        per_query: how many of its own planted passages are above a query's best positive.
        share: of the queries with at least one above.
        mean: of `per_query`.
    """

    per_query: dict[str, int]
    share: float
    share_low: float
    share_high: float
    mean: float


def planted_above(
    positive_scores: Mapping[str, float],
    planted: Mapping[str, Sequence[float]],
    seed: int = 0,
    resamples: int = 10_000,
) -> Above:
    """Count the planted passages of each query that are above its best positive; a tie counts as above.

    Args:
        positive_scores: the score of each query's best positive; of other queries, too.
        planted: the scores of each query's planted passages, at least one query.
        seed: of the interval's draws.
        resamples: how many draws.

    Raises:
        ValueError: there is no query, or one has no positive.
    """
    if not planted:
        raise ValueError("no query has planted passages")
    if missing := planted.keys() - positive_scores.keys():
        raise ValueError(f"the query {min(missing)!r} has no positive")
    counts = {q: int((np.asarray(scores) >= positive_scores[q]).sum()) for q, scores in planted.items()}
    values = np.array(list(counts.values()))
    any_above = (values > 0).astype(float)
    low, high = (
        interval(any_above, seed, resamples) if len(values) > 1 else (0.0, 1.0)
    )  # of one query, none of others is known
    return Above(
        per_query=counts, share=float(any_above.mean()), share_low=low, share_high=high, mean=float(values.mean())
    )


def _product(query: np.ndarray, passage: np.ndarray) -> float:
    return float(products(passage[None, None], query[None])[0, 0])


def with_planted(hits: Mapping[str, float], planted: Mapping[str, float], depth: int) -> dict[str, float]:
    """Return the best of a query's hits and of the planted passages, at most `depth`, best first, then by id."""
    both = {**hits, **planted}
    return {passage: both[passage] for passage in sorted(both, key=lambda p: (-both[p], p))[:depth]}


@dataclass(frozen=True)
class PlantedQuery:
    """A query that was not trained on, with its positives in the corpus and its accepted negatives.

    Attributes:
        positives: relevance of each positive by its id.
        negatives: text of each negative by its id.
        violations: what each negative violates, by its id.
    """

    text: str
    positives: dict[str, int]
    negatives: dict[str, str]
    violations: dict[str, str]

    def only(self, violation: str) -> "PlantedQuery":
        """Return the query with the negatives of one violation."""
        kept = {n: text for n, text in self.negatives.items() if self.violations[n] == violation}
        return PlantedQuery(self.text, self.positives, kept, dict.fromkeys(kept, violation))


def _not_trained(workspace: Workspace) -> dict[str, dict[str, int]]:
    """Return the positives, with their relevance, of every query that is held out or has no train pair."""
    held_out: set[str] = set()
    if workspace.exists(HELD_OUT):
        held_out = set(workspace.read_table(HELD_OUT, ["query_id"]).column(0).to_pylist())
    trained: set[str] = set()
    positives: dict[str, dict[str, int]] = {}
    for qrel in workspace.read_rows("qrels", Qrel):
        if qrel.score <= 0:
            continue
        if qrel.split == "train":
            trained.add(qrel.query_id)
        own = positives.setdefault(qrel.query_id, {})
        own[qrel.passage_id] = max(own.get(qrel.passage_id, 0), qrel.score)
    return {q: own for q, own in positives.items() if q in held_out or q not in trained}


def planted_queries(workspace: Workspace, passage_ids: pa.ChunkedArray) -> dict[str, PlantedQuery]:
    """Return the queries that have accepted negatives and a positive in the corpus, and were not trained on.

    These are the queries that the train stage held out, and those without a train pair. A train query that training
    left out for another reason is none of them.

    Args:
        workspace: imported, generated and trained.
        passage_ids: of the corpus.
    """
    positives = _not_trained(workspace)
    negatives: dict[str, dict[str, tuple[str, str]]] = {}
    wanted = pa.array(sorted(positives), pa.string())
    for batch in workspace.read_batches("negatives", Negative) if positives else ():
        ours = pc.and_(pc.is_in(batch.column("query_id"), wanted), pc.equal(batch.column("verdict"), "accepted"))
        for row in batch.filter(ours).select(["id", "query_id", "title", "text", "violation"]).to_pylist():
            negatives.setdefault(row["query_id"], {})[row["id"]] = (
                full_text(row["title"], row["text"]),
                row["violation"],
            )
    ids = {p for query in negatives for p in positives[query]}
    there = set(passage_ids.filter(pc.is_in(passage_ids, pa.array(sorted(ids), pa.string()))).to_pylist())
    found = {}
    for query in workspace.read_rows("queries", Query) if negatives else ():
        own = {p: score for p, score in positives.get(query.id, {}).items() if p in there}
        if own and query.id in negatives:
            rows = negatives[query.id]
            texts, violations = ({n: row[part] for n, row in rows.items()} for part in (0, 1))
            found[query.id] = PlantedQuery(query.text, own, texts, violations)
    return found


class PlantedFigures(Record):
    """What an encoder makes of queries with planted passages; intervals are of 95 %."""

    queries: int
    planted: int
    above_share: float = Field(description="share of the queries with one of their own above their best positive")
    above_low: float
    above_high: float
    above_mean: float = Field(description="how many of its own are above a query's best positive, on average")
    without: float = Field(description="the measure in the corpus as it is")
    with_planted: float = Field(description="the measure with the planted passages of all these queries in the corpus")


@dataclass(frozen=True)
class PlantedScores:
    """What was found for some queries with one encoder.

    Attributes:
        figures: of all of them.
        above: how many planted passages are above each query's best positive.
        without: the measure of each query in the corpus as it is.
        with_planted: the same with the planted passages.
    """

    figures: PlantedFigures
    above: dict[str, int]
    without: dict[str, float]
    with_planted: dict[str, float]


class Planter:
    """Ranks planted passages with one encoder; the corpus is searched once.

    Args:
        workspace: keeps vectors.
        model: the encoder.
        settings: how passages are encoded: planted ones as those of the corpus.
        queries: at least one.
        corpus: its vectors.
        passage_ids: its ids.
        depth: hits per query that the measure looks at.
        report: shows the progress.
        shard_passages: passages searched at a time.

    Raises:
        UserError: the encoder gives vectors that are not finite.
    """

    def __init__(
        self,
        workspace: Workspace,
        model: ResolvedModel,
        settings: EncodeSettings,
        queries: Mapping[str, PlantedQuery],
        corpus: CorpusFeatures,
        passage_ids: pa.ChunkedArray,
        depth: int,
        report: Reporter,
        shard_passages: int = 200_000,
    ) -> None:
        self._depth = depth
        vectors = encode(load_encoder(model), [q.text for q in queries.values()], "query", settings.batch_size)
        hits = exact_search(vectors, corpus, passage_ids, depth, report, shard_passages, settings.workers)
        self._vectors, self._hits = (dict(zip(queries, found, strict=True)) for found in (vectors, hits))
        positives = sorted({p for query in queries.values() for p in query.positives})
        numbers = pc.index_in(pa.array(positives, pa.string()), passage_ids.combine_chunks()).to_numpy()
        of_positives = dict(zip(positives, corpus.take(numbers), strict=True))
        self._best = {
            q: max(_product(self._vectors[q], of_positives[p]) for p in query.positives) for q, query in queries.items()
        }
        negatives = {n: text for query in queries.values() for n, text in query.negatives.items()}
        rows = embed_texts(workspace, model, settings, [list(negatives.values())])
        self._planted = dict(zip(negatives, rows.take(np.arange(len(rows))), strict=True))

    def __call__(
        self, queries: Mapping[str, PlantedQuery], measure: str, seed: int, resamples: int = 10_000
    ) -> PlantedScores:
        """Rank the negatives of some of the queries, planted all together.

        Args:
            queries: some of those given before, perhaps with fewer negatives.
            measure: of retrieval, by its ir_measures name.
            seed: of the interval's draws.
            resamples: how many draws.
        """
        own = {q: [_product(self._vectors[q], self._planted[n]) for n in of.negatives] for q, of in queries.items()}
        above = planted_above(self._best, own, seed, resamples)
        qrels = {q: query.positives for q, query in queries.items()}
        without = {q: self._hits[q] for q in queries}
        mixed = self._mixed(without, sorted({n for query in queries.values() for n in query.negatives}))
        scores = [compute([measure], qrels, run) for run in (without, mixed)]
        figures = PlantedFigures(
            queries=len(queries),
            planted=sum(map(len, own.values())),
            above_share=above.share,
            above_low=above.share_low,
            above_high=above.share_high,
            above_mean=above.mean,
            without=scores[0].mean[measure],
            with_planted=scores[1].mean[measure],
        )
        return PlantedScores(figures, above.per_query, *(score.per_query[measure] for score in scores))

    def _mixed(self, hits: Mapping[str, Mapping[str, float]], negatives: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return the hits of a search of corpus and planted passages together: the best of both searches."""
        vectors = np.stack([self._vectors[q] for q in hits])
        found = search(np.stack([self._planted[n] for n in negatives]), vectors, self._depth)
        return {
            q: with_planted(hits[q], {_MARK + negatives[r]: float(s) for r, s in zip(*some, strict=True)}, self._depth)
            for q, *some in zip(hits, found.rows, found.scores, strict=True)
        }


def measure_planted(
    planter: Planter, queries: Mapping[str, PlantedQuery], measure: str, seed: int, resamples: int = 10_000
) -> dict[str, PlantedScores]:
    """Return what is found with all planted passages, under "", and with those of each violation alone."""
    violations = sorted({v for query in queries.values() for v in query.violations.values()})
    found = {"": planter(queries, measure, seed, resamples)}
    for violation in violations:
        some = {q: query.only(violation) for q, query in queries.items()}
        found[violation] = planter({q: query for q, query in some.items() if query.negatives}, measure, seed, resamples)
    return found
