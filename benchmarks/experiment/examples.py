"""The train pairs of an experiment: the same for all arms, each with negatives enough for every one of them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.experiment.negatives import Negatives, Pair
from causalneg.config import Config
from causalneg.embedding import load_encoder
from causalneg.evaluation.contrast import ContrastPair, score_pairs
from causalneg.margins import relative_score
from causalneg.models import resolve
from causalneg.records import Mined, Negative, Query, Relation
from causalneg.workspace import Workspace

BAND = 0.95
"""Share of the positive's score up to which mined negatives are kept (arXiv 2407.15831)."""


class Example(NamedTuple):
    """A train pair with what an arm may take for it.

    Attributes:
        positive_row: what mining says of the positive.
        mined: accepted mined negatives, the best first.
        generated: by kind, the preferred first.
    """

    query_id: str
    positive_id: str
    positive_row: Mined | None
    mined: tuple[Mined, ...]
    generated: dict[str, tuple[Negative, ...]]


class Examples(NamedTuple):
    """Pairs to train on, and pairs that no arm trains on."""

    train: list[Example]
    held_out: list[Example]


def relative(negative: Negative) -> float:
    """Return a generated negative's cosine as a share of the positive's, by the encoder that mines."""
    return relative_score(negative.scores["cosine"], negative.scores["positive_cosine"])


def _with_cosines(negatives: Sequence[Negative], config: Config, workspace: Workspace) -> list[Negative]:
    """Return the negatives with the mining encoder's cosines to the query, of themselves and of the positive."""
    encoder = load_encoder(resolve(config.mining_encoder))
    wanted = {n.query_id for n in negatives}
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query) if q.id in wanted}
    positives = workspace.passages({n.positive_id for n in negatives})

    pairs = [
        ContrastPair(query=queries[n.query_id], positive=positives[n.positive_id].full_text, counterfactual=n.full_text)
        for n in negatives
    ]
    return [
        n.model_copy(update={"scores": n.scores | {"cosine": cosine, "positive_cosine": of_positive}})
        for n, (of_positive, cosine) in zip(negatives, score_pairs(encoder, pairs).tolist(), strict=True)
    ]


def _pairs(kinds: Mapping[str, Negatives]) -> list[Pair]:
    """Return the first pair of each query that has a negative of every kind, in the order of the first kind."""
    first, *others = kinds.values()
    by_query: dict[str, Pair] = {}
    for pair in first:
        if all(pair in other for other in others):
            by_query.setdefault(pair[0], pair)
    return list(by_query.values())


def _drawn(query_id: str) -> str:
    return hashlib.md5(query_id.encode(), usedforsecurity=False).hexdigest()


def make_examples(
    workspace: Workspace, config: Config, kinds: Mapping[str, Negatives], wanted: int, held_out_share: float
) -> Examples:
    """Join pairs with their negatives, and draw those that are held out by a hash of the query's id.

    Args:
        workspace: imported and mined.
        config: names the encoder that mines.
        kinds: generated negatives by kind; a pair needs one of each.
        wanted: mined negatives that a pair must have, so that an arm without generated ones has as many as the others.
        held_out_share: share of the pairs.
    """
    mined: dict[str, list[Mined]] = {}
    positives: dict[Pair, Mined] = {}
    for row in workspace.read_rows("mined", Mined):
        if row.relation is Relation.POSITIVE:
            positives[row.query_id, row.passage_id] = row
        elif row.verdict == "accepted":
            mined.setdefault(row.query_id, []).append(row)
    pairs = [pair for pair in _pairs(kinds) if len(mined.get(pair[0], ())) >= wanted]
    rows = [negative for pair in pairs for negatives in kinds.values() for negative in negatives[pair]]
    scored = {negative.id: negative for negative in _with_cosines(rows, config, workspace)}
    examples = [
        Example(
            *pair,
            positives.get(pair),
            tuple(mined[pair[0]]),
            {kind: tuple(scored[n.id] for n in negatives[pair]) for kind, negatives in kinds.items()},
        )
        for pair in pairs
    ]
    number = round(held_out_share * len(examples))
    out = {e.query_id for e in sorted(examples, key=lambda e: _drawn(e.query_id))[:number]}
    return Examples([e for e in examples if e.query_id not in out], [e for e in examples if e.query_id in out])
