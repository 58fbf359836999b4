"""The join of train pairs with their negatives, mined ones first: what training reads and other tools are given."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from causalneg.errors import UserError
from causalneg.records import Mined, Negative, Passage, Qrel, Query, Source, from_table
from causalneg.workspace import Workspace


@dataclass(frozen=True)
class RowIds:
    """A pair of the train split with its negatives, before texts are looked up."""

    query_id: str
    positive_id: str
    mined: tuple[str, ...]
    generated: tuple[str, ...]


class Selection(NamedTuple):
    """The pairs that have negatives.

    Attributes:
        rows: pairs with at least one negative, in the order of the qrels.
        pairs: train pairs looked at; those that are no row have no negative.
    """

    rows: list[RowIds]
    pairs: int

    def count(self, source: Source) -> int:
        """Return how many negatives of a source the rows hold."""
        return sum(len(row.mined if source is Source.MINED else row.generated) for row in self.rows)


class Texts(NamedTuple):
    """Queries, passages and generated negatives by their ids."""

    queries: dict[str, str]
    passages: dict[str, Passage]
    generated: dict[str, Passage]


class MinedId(NamedTuple):
    """An accepted mined negative."""

    query_id: str
    passage_id: str


class GeneratedId(NamedTuple):
    """An accepted generated negative."""

    query_id: str
    positive_id: str
    id: str


def select_rows(
    qrels: Iterable[Qrel],
    mined: Iterable[MinedId],
    generated: Iterable[GeneratedId],
    mined_per_query: int,
    generated_per_query: int,
) -> Selection:
    """Choose the negatives of every positive of the train split: one row per pair that has any.

    Mined negatives belong to the query, generated ones to the pair. The first are taken in the order given.
    """
    known: dict[str, str] = {}  # one object for each id, however often it comes
    mined_ids: dict[str, list[str]] = defaultdict(list)
    for query_id, passage_id in mined:
        if len(mined_ids[query_id]) < mined_per_query:
            mined_ids[query_id].append(known.setdefault(passage_id, passage_id))
    generated_ids: dict[tuple[str, str], list[str]] = defaultdict(list)
    for query_id, positive_id, negative_id in generated:
        if len(generated_ids[query_id, positive_id]) < generated_per_query:
            generated_ids[query_id, positive_id].append(negative_id)
    rows, pairs = [], 0
    for qrel in qrels:
        if qrel.split != "train" or qrel.score <= 0:
            continue
        pairs += 1
        row = RowIds(
            qrel.query_id,
            known.setdefault(qrel.passage_id, qrel.passage_id),
            tuple(mined_ids.get(qrel.query_id, ())),
            tuple(generated_ids.get((qrel.query_id, qrel.passage_id), ())),
        )
        if row.mined or row.generated:
            rows.append(row)
    return Selection(rows, pairs)


def accepted(
    workspace: Workspace, folder: str, record: type[Mined | Negative], *columns: str
) -> Iterator[tuple[str, ...]]:
    """Stream some columns of a folder's accepted rows."""
    for batch in workspace.read_batches(folder, record):
        kept = batch.filter(pc.equal(batch.column("verdict"), "accepted"))
        yield from zip(*(kept.column(name).to_pylist() for name in columns), strict=True)


def read_selection(workspace: Workspace, mined_per_query: int, generated_per_query: int) -> Selection:
    """Choose the negatives of every train pair of a workspace, by their ids; what is not asked for is not read."""
    mined = accepted(workspace, "mined", Mined, *MinedId._fields) if mined_per_query else ()
    generated = accepted(workspace, "negatives", Negative, *GeneratedId._fields) if generated_per_query else ()
    return select_rows(
        workspace.read_rows("qrels", Qrel),
        (MinedId(*values) for values in mined),
        (GeneratedId(*values) for values in generated),
        mined_per_query,
        generated_per_query,
    )


def _generated(workspace: Workspace, ids: set[str]) -> dict[str, Passage]:
    wanted = pa.array(sorted(ids), pa.string())
    found: dict[str, Passage] = {}
    for batch in workspace.read_batches("negatives", Negative) if ids else ():
        chosen = batch.filter(pc.is_in(batch.column("id"), value_set=wanted)).select(["id", "title", "text"])
        found |= {p.id: p for p in from_table(Passage, chosen)}
    return found


def read_texts(workspace: Workspace, rows: Sequence[RowIds]) -> Texts:
    """Read the texts of rows; the folders are read as streams, so memory holds these texts and no others.

    Raises:
        UserError: a text is not there.
    """
    query_ids = {row.query_id for row in rows}
    passage_ids = {i for row in rows for i in (row.positive_id, *row.mined)}
    generated_ids = {i for row in rows for i in row.generated}
    wanted = pa.array(sorted(query_ids), pa.string())
    queries: dict[str, str] = {}
    for batch in workspace.read_batches("queries", Query):
        queries |= {q.id: q.text for q in from_table(Query, batch.filter(pc.is_in(batch.column("id"), wanted)))}
    texts = Texts(queries, workspace.passages(passage_ids), _generated(workspace, generated_ids))
    for ids, found, name, folder, command in (
        (query_ids, texts.queries, "query", "queries", "import"),
        (passage_ids, texts.passages, "passage", "corpus", "import"),
        (generated_ids, texts.generated, "generated negative", "negatives", "generate"),
    ):
        if missing := sorted(ids - found.keys()):
            raise UserError(
                f"The {name} {missing[0]!r} of a train pair is not in {workspace.path(folder)}; "
                f"run `causalneg {command}` again."
            )
    return texts
