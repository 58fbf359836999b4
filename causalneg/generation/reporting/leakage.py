"""Source leakage: how well generated negatives can be told from mined ones without looking at the query.

A linear probe is trained on some queries and asked about others. Where it succeeds, an encoder that is trained on these
negatives can tell them apart as well, and learn the source in place of relevance. Three things would make the probe
look better or worse than the negatives are, and are kept out:

- The texts of a query share its topic: a query is in the training part or in the tested part, never in both.
- A passage may be mined for one query and edited for another: what shares a document with the tested part is left out
  of training.
- Numbers that differ: as many mined negatives are drawn for a query as it has generated ones, as far as there are.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel

from causalneg.generation.reporting.surface import Telling, feature_table, most_telling
from causalneg.records import Negative, Passage, content_id

_FOLDS = 5
_LEAST_TEXTS = 10  # of each source
_LEAST_QUERIES = 4
_INVERSE_PENALTY = 0.01  # on standardised features: strong, since there are about as many dimensions as texts
_RESAMPLED = 1000
_TOLD_APART = ((0.6, "can hardly be told"), (0.75, "can be told to some extent"), (0.9, "can mostly be told"))
STRONG_AUC = 0.75  # from here on the leakage counts as strong


@dataclass(frozen=True)
class SourcedText:
    """A text that is probed, with all that the probes must know about it.

    Attributes:
        document_id: passage that it is, or that it was made from.
        role: a positive belongs to neither source; positives are only compared with the mined negatives.
    """

    text: str
    query_id: str
    document_id: str
    role: Literal["mined", "generated", "positive"]
    mode: str | None = None
    violation: str | None = None
    operation: str | None = None

    @classmethod
    def of_negative(cls, negative: Negative) -> "SourcedText":
        """Make it of a generated negative."""
        return cls(
            negative.full_text,
            negative.query_id,
            negative.positive_id,
            "generated",
            negative.mode,
            str(negative.violation),
            str(negative.edit.operation) if negative.edit else None,
        )

    @classmethod
    def of_passage(cls, query_id: str, passage: Passage, role: Literal["mined", "positive"]) -> "SourcedText":
        """Make it of a passage that was mined for a query, or that is its positive."""
        return cls(passage.full_text, query_id, passage.id, role)


class Probe(BaseModel):
    """How well a linear probe tells two kinds of text apart.

    Attributes:
        auc: chance that a generated text scores above a mined one, both of queries that the probe was not trained on;
            0.5 where they cannot be told apart, 1 where they always can.
        low: lower end of the 95 % interval; it covers the choice of the queries and not the probe's training.
        high: its upper end.
        mined: mined texts.
        generated: generated texts.
        queries: queries they belong to.
    """

    auc: float
    low: float
    high: float
    mined: int
    generated: int
    queries: int


class LeakageReport(BaseModel):
    """How far the source of the negatives shows. A probe is None where there are too few texts to tell.

    Attributes:
        generated: generated texts looked at.
        mined: mined texts drawn to compare them with.
        queries: queries they belong to.
        unmatched: generated texts beyond the mined ones of their query.
        overall: probe on the embeddings.
        surface: probe on lengths, punctuation and the like.
        positives: probe that tells positives from mined negatives by their embeddings. Nobody wrote those on purpose:
            as much of `overall` comes from being about what the query asks, and not from being generated.
        telling: by what they can be told apart, so that prompts can be mended.
        reading: the overall result in one sentence.
    """

    generated: int
    mined: int
    queries: int
    unmatched: int
    overall: Probe | None
    surface: Probe | None
    positives: Probe | None
    by_mode: dict[str, Probe | None]
    by_violation: dict[str, Probe | None]
    by_operation: dict[str, Probe | None]
    telling: list[Telling]
    reading: str


# What is compared


def draw_queries(generated: Mapping[str, int], limit: int, seed: int) -> list[str]:
    """Draw queries until they have `limit` generated negatives together, or there are no more.

    Args:
        generated: generated negatives of each query.
        limit: how many negatives are enough; a few thousand tell what more would.
        seed: of the draw.
    """
    chosen, total = [], 0
    for query_id in sorted(generated, key=lambda q: content_id(seed, q)):
        if total >= limit:
            break
        if generated[query_id]:
            chosen.append(query_id)
            total += generated[query_id]
    return chosen


def draw_mined(wanted: Mapping[str, int], mined: Mapping[str, Sequence[str]], seed: int) -> list[tuple[str, str]]:
    """Draw mined negatives, as many for each query as wanted if it has them; no passage is drawn twice.

    Args:
        wanted: generated negatives of each query.
        mined: ids of the passages mined for each query.
        seed: of the draw.

    Returns:
        Ids of query and passage.
    """
    drawn: list[tuple[str, str]] = []
    used: set[str] = set()
    for query_id in sorted(wanted, key=lambda q: content_id(seed, q)):
        free = sorted(set(mined.get(query_id, ())) - used, key=lambda p: content_id(seed, query_id, p))
        taken = free[: wanted[query_id]]
        used.update(taken)
        drawn += [(query_id, passage_id) for passage_id in taken]
    return drawn


# The probe


class FoldedRanks:
    """Out-of-fold scores, ready to give the AUC under any weights of the texts.

    Only texts of one fold are compared: each fold has a probe of its own, and their scores have no common zero.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> None:
        order = np.lexsort((scores, folds))
        scores, folds = scores[order], folds[order]
        new_fold = np.diff(folds, prepend=folds[0] - 1) != 0
        new_place = new_fold | (np.diff(scores, prepend=scores[0]) != 0)
        self._order, self._labels = order, labels[order]
        self._place = np.cumsum(new_place) - 1  # texts with the same score share a place
        self._starts = self._place[new_fold]
        self._lengths = np.diff([*self._starts, self._place[-1] + 1])

    def auc(self, weights: np.ndarray) -> float:
        """Return the share of pairs in the right order, ties counting half; NaN where there is no pair."""
        weights = weights[self._order]
        high = np.bincount(self._place, weights * self._labels)
        low = np.bincount(self._place, weights * ~self._labels)
        high_of_fold, low_of_fold = np.add.reduceat(high, self._starts), np.add.reduceat(low, self._starts)
        of_earlier_folds = np.repeat(np.cumsum(low_of_fold) - low_of_fold, self._lengths)
        below = np.cumsum(low) - low / 2 - of_earlier_folds
        pairs = float(high_of_fold @ low_of_fold)
        return float(high @ below) / pairs if pairs else float("nan")


def _out_of_fold(vectors: np.ndarray, labels: np.ndarray, folds: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Score each text by a probe that saw no text of its fold and none of its documents; NaN where none could learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.full(len(labels), np.nan)
    for fold in np.unique(folds):
        tested = folds == fold
        trained = ~np.isin(documents, documents[tested]) & ~tested
        if len(np.unique(labels[trained])) == 2:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000))
            model.fit(vectors[trained], labels[trained])
            scores[tested] = model.decision_function(vectors[tested])
    return scores


def probe(
    vectors: np.ndarray,
    is_generated: np.ndarray,
    groups: Sequence[str],
    seed: int,
    documents: Sequence[str] | None = None,
) -> Probe | None:
    """Tell generated from mined texts by a logistic regression that is tested on queries it did not learn from.

    Args:
        vectors: float `[texts, dimension]`.
        is_generated: bool `[texts]`.
        groups: query of each text; a query's texts are trained on together or tested together.
        seed: of the folds and of the interval's resampling.
        documents: passage that each text is or was made from; texts of one are never in training and test both.

    Returns:
        None where there are too few texts or queries to tell.
    """
    labels = np.asarray(is_generated, bool)
    names, group = np.unique(np.asarray(groups, str), return_inverse=True)
    if min(labels.sum(), (~labels).sum()) < _LEAST_TEXTS or len(names) < _LEAST_QUERIES:
        return None
    random = np.random.default_rng(seed)
    folds = (random.permutation(len(names)) % min(_FOLDS, len(names)))[group]
    document = np.arange(len(labels)) if documents is None else np.unique(documents, return_inverse=True)[1]
    scores = _out_of_fold(np.asarray(vectors), labels, folds, document)
    known = np.isfinite(scores)
    if not known.any():
        return None
    ranks, group = FoldedRanks(scores[known], labels[known], folds[known]), group[known]
    auc = ranks.auc(np.ones(len(group)))
    if np.isnan(auc):
        return None
    low, high = np.nanpercentile([ranks.auc(w) for w in _resampled(group, len(names), random)], [2.5, 97.5])
    generated = int(labels.sum())
    return Probe(
        auc=auc,
        low=float(low),
        high=float(high),
        mined=len(labels) - generated,
        generated=generated,
        queries=len(names),
    )


def _resampled(group: np.ndarray, groups: int, random: np.random.Generator) -> Iterable[np.ndarray]:
    """Draw the queries anew, with replacement, and yield how often each text was drawn with its query."""
    for _ in range(_RESAMPLED):
        yield np.bincount(random.integers(0, groups, groups), minlength=groups)[group].astype(float)


# The report


def reading(result: Probe | None) -> str:
    """Say in one sentence what the probe's result means."""
    if result is None:
        return "There are too few negatives to tell whether their source can be recognised."
    scale = f"0.5 is chance, and leakage is strong from {STRONG_AUC} on"
    figures = f"AUC {result.auc:.2f}, 95 % interval {result.low:.2f} to {result.high:.2f}; {scale}"
    if result.low <= 0.5:
        return f"No linear trace of the source was found: generated negatives look like mined ones ({figures})."
    how = next((words for limit, words in _TOLD_APART if result.auc < limit), "can nearly always be told")
    warning = ", so that an encoder may learn the source in place of relevance" if result.auc >= STRONG_AUC else ""
    return f"Generated negatives {how} from mined ones without the query{warning} ({figures})."


class _Comparison:
    """The negatives of both sources, and the probes on any part of the generated ones.

    Args:
        texts: generated, mined and positive ones.
        seed: of the probes.
    """

    def __init__(self, texts: Sequence[SourcedText], seed: int) -> None:
        self.texts, self._seed = texts, seed
        self.queries = np.array([t.query_id for t in texts], str)
        self._documents = np.array([t.document_id for t in texts], str)
        self._mined_of: dict[str, list[int]] = defaultdict(list)
        for at in self.of("mined"):
            self._mined_of[self.queries[at]].append(at)

    def of(self, role: str) -> np.ndarray:
        """Return the numbers of the texts with a role."""
        return np.flatnonzero(np.array([t.role for t in self.texts], str) == role)

    def run(self, chosen: np.ndarray, vectors: np.ndarray) -> Probe | None:
        """Probe chosen texts, by their numbers, against as many mined ones of the same queries."""
        wanted = Counter(self.queries[chosen].tolist())
        mined = [at for query_id, number in wanted.items() for at in self._mined_of[query_id][:number]]
        both = np.array([*mined, *chosen], int)
        labels = np.arange(len(both)) >= len(mined)
        return probe(vectors[both], labels, self.queries[both].tolist(), self._seed, self._documents[both].tolist())

    def by(self, attribute: str, overall: Probe | None, vectors: np.ndarray) -> dict[str, Probe | None]:
        """Probe the generated texts of each kind by itself."""
        generated = self.of("generated")
        kinds = np.array([getattr(self.texts[at], attribute) or "" for at in generated], str)
        return {
            str(kind): overall if (kinds == kind).all() else self.run(generated[kinds == kind], vectors)
            for kind in np.unique(kinds)
            if kind
        }

    def unmatched(self) -> int:
        """Count the generated texts beyond the mined ones of their query."""
        generated = Counter(self.queries[self.of("generated")].tolist())
        return sum(max(0, number - len(self._mined_of[query_id])) for query_id, number in generated.items())


def leakage(texts: Sequence[SourcedText], vectors: np.ndarray, seed: int, limit: int = 10) -> LeakageReport:
    """Measure how far the source of a set's negatives shows.

    Args:
        texts: generated negatives and the mined ones drawn for them (`draw_mined`); positives of the same queries may
            stand beside them, for comparison.
        vectors: the texts' embeddings, float `[texts, dimension]`.
        seed: of folds and intervals.
        limit: telling features, and telling words, at most.
    """
    compare = _Comparison(texts, seed)
    generated, mined = compare.of("generated"), compare.of("mined")
    both = np.concatenate([generated, mined])
    queries = compare.queries[both].tolist()
    overall = compare.run(generated, vectors)
    return LeakageReport(
        generated=len(generated),
        mined=len(mined),
        queries=len(set(queries)),
        unmatched=compare.unmatched(),
        overall=overall,
        surface=compare.run(generated, feature_table([t.text for t in texts])[1]),
        positives=compare.run(compare.of("positive"), vectors),
        by_mode=compare.by("mode", overall, vectors),
        by_violation=compare.by("violation", overall, vectors),
        by_operation=compare.by("operation", overall, vectors),
        telling=most_telling([texts[at].text for at in both], np.arange(len(both)) < len(generated), limit, queries),
        reading=reading(overall),
    )
