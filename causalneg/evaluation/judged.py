"""The queries of a workspace's split that can be measured, with their judgements."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from causalneg.errors import UserError
from causalneg.records import Qrel, Query
from causalneg.workspace import Workspace


@dataclass(frozen=True)
class Judged:
    """Queries of a split that have a positive in the corpus, in the order of import.

    Attributes:
        texts: text of each query, by id.
        qrels: judgements of each query, by id: passage id to relevance.
        left_out: how many judged queries have no positive in the corpus.
    """

    texts: dict[str, str]
    qrels: dict[str, dict[str, int]]
    left_out: int


def _qrels(workspace: Workspace, split: str, setting: str) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    splits = set()
    for qrel in workspace.read_rows("qrels", Qrel):
        splits.add(qrel.split)
        if qrel.split == split:
            qrels.setdefault(qrel.query_id, {})[qrel.passage_id] = qrel.score
    if not qrels:
        there = ", ".join(sorted(splits)) or "none"
        raise UserError(f"{setting}: the data has no judgements for the split {split!r}; there are: {there}.")
    return qrels


def read_judged(workspace: Workspace, split: str, passage_ids: pa.ChunkedArray, setting: str) -> Judged:
    """Read the queries of a split that can be measured.

    Args:
        workspace: data is imported there.
        split: name of the split.
        passage_ids: of the corpus.
        setting: that names the split, for messages.

    Raises:
        UserError: there is no such split, or none of its queries has a positive in the corpus.
    """
    qrels = _qrels(workspace, split, setting)
    positives = {p for judged in qrels.values() for p, score in judged.items() if score > 0}
    wanted = pa.array(sorted(positives), pa.string())
    there = set(passage_ids.filter(pc.is_in(passage_ids, value_set=wanted)).to_pylist())
    texts = {
        query.id: query.text
        for query in workspace.read_rows("queries", Query)
        if any(score > 0 and p in there for p, score in qrels.get(query.id, {}).items())
    }
    if not texts:
        raise UserError(f"{setting}: no query of the split {split!r} has a positive in the corpus.")
    return Judged(texts, {query: qrels[query] for query in texts}, len(qrels) - len(texts))
