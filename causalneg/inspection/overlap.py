"""What train and the other splits have in common."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from causalneg.inspection.alike import QueryIndex
from causalneg.inspection.findings import Alike, Overlap, SplitFinding
from causalneg.inspection.folders import read_columns
from causalneg.workspace import Workspace

TRAIN = "train"
_EXAMPLES = 3


class Judgements:
    """The relevance judgements of a workspace, without texts."""

    def __init__(self, workspace: Workspace) -> None:
        columns = ["query_id", "passage_id", "score", "split"]
        schema = pa.schema([(n, pa.int64() if n == "score" else pa.string()) for n in columns])
        self._table = pa.Table.from_batches(read_columns(workspace, "qrels", columns), schema)

    def splits(self) -> list[SplitFinding]:
        """Return the size of every split, train first."""
        names = sorted(pc.unique(self._table.column("split")).to_pylist(), key=lambda name: (name != TRAIN, name))
        return [
            SplitFinding(
                split=name,
                queries=len(self.queries(name)),
                judgements=len(self._of(name)),
                positives=len(self._of(name).filter(pc.field("score") > 0)),
            )
            for name in names
        ]

    def _of(self, split: str) -> pa.Table:
        return self._table.filter(pc.field("split") == split)

    def queries(self, split: str) -> pa.Array:
        """Return the ids of a split's queries, each once."""
        return pc.unique(self._of(split).column("query_id"))

    def positives(self, split: str) -> pa.Array:
        """Return the ids of the passages that are a positive in a split, each once."""
        return pc.unique(self._of(split).filter(pc.field("score") > 0).column("passage_id"))


def mined_passages(workspace: Workspace) -> pa.Array:
    """Return the ids of the passages that were accepted as mined negatives, each once."""
    accepted = [pa.array([], pa.string())]
    for batch in read_columns(workspace, "mined", ["passage_id", "verdict"]):
        accepted.append(batch.filter(pc.equal(batch.column("verdict"), "accepted")).column("passage_id"))
    return pc.unique(pa.chunked_array(accepted))


def _texts(workspace: Workspace, ids: pa.Array) -> Iterable[tuple[str, str]]:
    for batch in read_columns(workspace, "queries", ["id", "text"]):
        kept = batch.filter(pc.is_in(batch.column("id"), value_set=ids))
        yield from zip(kept.column("id").to_pylist(), kept.column("text").to_pylist(), strict=True)


class _Matches:
    """Which queries of an index were met, and by which train query."""

    def __init__(self) -> None:
        self.same: dict[str, tuple[str, str]] = {}
        self.near: dict[str, tuple[str, str]] = {}

    def examples(self, ids: set[str], texts: dict[str, str]) -> list[Alike]:
        """Return the first matches of some queries, the same ones first."""
        found = [(i, by) for matches in (self.same, self.near) for i, by in sorted(matches.items()) if i in ids]
        return [
            Alike(query_id=i, query=texts[i], train_query_id=train_id, train_query=text)
            for i, (train_id, text) in found[:_EXAMPLES]
        ]


def _match(index: QueryIndex, train: Iterable[tuple[str, str]]) -> _Matches:
    matches = _Matches()
    for train_id, text in train:
        for query_id in index.same(text):
            matches.same.setdefault(query_id, (train_id, text))
        for query_id in index.near(text):
            matches.near.setdefault(query_id, (train_id, text))
    matches.near = {i: by for i, by in matches.near.items() if i not in matches.same}
    return matches


def find_overlap(workspace: Workspace, judgements: Judgements, mined: pa.Array) -> list[Overlap]:
    """Compare every other split with train; the queries of the others are held, those of train are streamed.

    Args:
        workspace: is only read.
        judgements: of the workspace.
        mined: ids of the passages that were mined as negatives.
    """
    others = [s.split for s in judgements.splits() if s.split != TRAIN]
    ids = {split: judgements.queries(split) for split in others}
    index = QueryIndex(_texts(workspace, pa.concat_arrays([pa.array([], pa.string()), *ids.values()])))
    matches = _match(index, _texts(workspace, judgements.queries(TRAIN)))
    train = judgements.positives(TRAIN)
    findings = []
    for split in others:
        own, positives = set(ids[split].to_pylist()), judgements.positives(split)
        findings.append(
            Overlap(
                split=split,
                queries=len(own),
                same_queries=len(own & matches.same.keys()),
                near_queries=len(own & matches.near.keys()),
                examples=matches.examples(own, index.texts),
                positives=len(positives),
                positives_in_train=pc.sum(pc.is_in(positives, value_set=train)).as_py() or 0,
                negatives_in_train=pc.sum(pc.is_in(positives, value_set=mined)).as_py() or 0,
            )
        )
    return findings
