"""Joins the train queries with their positives and mined negatives: what generation works on, in slices."""

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from causalneg.false_negatives import false_negatives, verdict_stages
from causalneg.generation.rows import Pair
from causalneg.records import FalseNegative, Mined, Passage, Query, content_id, from_table
from causalneg.workspace import Workspace

_REFERENCES = 15  # mined negatives whose texts a pair carries
_SLICE = 20_000  # queries joined at a time; bounds the memory, at the price of one look through the corpus for each


def train_pairs(workspace: Workspace) -> Iterator[Pair]:
    """Yield every train query with each of its positives, in the order of import."""
    positives = iter(workspace.positives("train").items())
    while batch := dict(islice(positives, _SLICE)):
        yield from _join(workspace, batch)


def mined_of(workspace: Workspace, queries: pa.Array) -> dict[str, list[Mined]]:
    """Return the accepted mined rows of some queries, in their order, without those that relabel found to answer."""
    false: set[tuple[str, str]] = set()
    for batch in false_negatives(workspace, verdict_stages(workspace, ("relabel",))):
        found = from_table(FalseNegative, batch.filter(pc.is_in(batch.column("query_id"), queries)))
        false |= {(f.query_id, f.passage_id) for f in found}
    mined: dict[str, list[Mined]] = {}
    for row in accepted_of(workspace, queries):
        if (row.query_id, row.passage_id) not in false:
            mined.setdefault(row.query_id, []).append(row)
    return mined


def accepted_of(workspace: Workspace, queries: pa.Array) -> Iterator[Mined]:
    """Yield the accepted mined rows of some queries, in their order."""
    for batch in workspace.read_batches("mined", Mined):
        ours = pc.and_(pc.is_in(batch.column("query_id"), queries), pc.equal(batch.column("verdict"), "accepted"))
        yield from from_table(Mined, batch.filter(ours))


def texts_of(workspace: Workspace, queries: pa.Array) -> dict[str, Query]:
    """Return some queries by their ids."""
    found: dict[str, Query] = {}
    for batch in workspace.read_batches("queries", Query):
        found |= {q.id: q for q in from_table(Query, batch.filter(pc.is_in(batch.column("id"), queries)))}
    return found


def _join(workspace: Workspace, positives: dict[str, list[str]]) -> Iterator[Pair]:
    wanted = pa.array(sorted(positives), pa.string())
    mined, queries = mined_of(workspace, wanted), texts_of(workspace, wanted)
    ids = {p for own in positives.values() for p in own}
    ids |= {m.passage_id for rows in mined.values() for m in rows[:_REFERENCES]}
    passages: dict[str, Passage] = workspace.passages(ids)
    for query_id, own in positives.items():
        negatives = mined.get(query_id, [])
        for positive_id in own:
            yield Pair(
                id=content_id("pair", query_id, positive_id),
                query=queries[query_id],
                positive=passages[positive_id],
                other_positives=[passages[p] for p in own if p != positive_id],
                references=[passages[m.passage_id] for m in negatives[:_REFERENCES]],
                mined_scores=[m.dense_score for m in negatives],
            )
