"""The join of train pairs with their negatives, mined ones first: what training reads and other tools are given."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from causalneg.errors import UserError
from causalneg.false_negatives import false_negatives, verdict_stages
from causalneg.records import (
    FalseNegative,
    Mined,
    Negative,
    Passage,
    Qrel,
    Query,
    Record,
    Source,
    arrow_schema,
    from_table,
)
from causalneg.runtime import cores
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
        left_out: mined negatives that were found to answer their query, and left out.
        promoted: of the pairs, those whose positive is one of these.
    """

    rows: list[RowIds]
    pairs: int
    left_out: int = 0
    promoted: int = 0

    def count(self, source: Source) -> int:
        """Return how many negatives of a source the rows hold."""
        return sum(len(row.mined if source is Source.MINED else row.generated) for row in self.rows)


class Texts(NamedTuple):
    """Queries, passages and generated negatives by their ids."""

    queries: dict[str, str]
    passages: dict[str, Passage]
    generated: dict[str, Passage]


def accepted(
    workspace: Workspace, folder: str, record: type[Mined | Negative], *columns: str
) -> Iterator[tuple[str, ...]]:
    """Stream some columns of a folder's accepted rows."""
    for batch in workspace.read_batches(folder, record):
        kept = batch.filter(pc.equal(batch.column("verdict"), "accepted"))
        yield from zip(*(kept.column(name).to_pylist() for name in columns), strict=True)


_PARTS = 10_000  # rows handed out at a time
_MEMORY = "512MB"  # of the join; what is more goes to its folder

_QREL = ["query_id", "passage_id", "score", "split"]
_MINED = ["query_id", "passage_id", "dense_score", "cross_score", "positive_score", "relation", "verdict"]
_GENERATED = ["id", "query_id", "positive_id", "violation", "scores", "verdict"]
_FALSE = ["query_id", "passage_id", "whole"]

FalseNegatives = Literal["keep", "remove", "promote"]
"""What becomes of mined passages that were found to answer their query."""

# Every row has its place `n` in its folder, so that orders do not depend on how the tables are read.
_JOIN = """
CREATE TABLE false_mined AS
    SELECT mined.n, query_id, passage_id, bool_or(whole) AS whole
    FROM mined JOIN false_negatives USING (query_id, passage_id) WHERE verdict = 'accepted' GROUP BY ALL;
CREATE TABLE pairs AS
    SELECT row_number() OVER (ORDER BY promoted, n) - 1 AS pair, query_id, passage_id AS positive_id, promoted FROM (
        SELECT n, query_id, passage_id, false AS promoted FROM qrels WHERE split = 'train' AND score > 0
        UNION ALL
        SELECT n, query_id, passage_id, true FROM false_mined WHERE whole AND getvariable('promote'));
CREATE TABLE negatives AS
    SELECT pair, false AS generated, place, passage_id AS id, NULL::VARCHAR AS violation,
           dense_score AS dense, cross_score AS "cross", positive_score, NULL::MAP(VARCHAR, DOUBLE) AS scores
    FROM (SELECT *, row_number() OVER (PARTITION BY query_id ORDER BY n) AS place
          FROM mined ANTI JOIN false_mined USING (n)
          WHERE verdict = 'accepted' QUALIFY place <= getvariable('mined_per_query'))
    JOIN pairs USING (query_id)
    UNION ALL
    SELECT pair, true, place, id, violation,
           scores['cosine'], scores['cross_score'], scores['positive_cosine'], scores
    FROM (SELECT *, row_number() OVER (PARTITION BY query_id, positive_id ORDER BY n) AS place
          FROM generated WHERE verdict = 'accepted' QUALIFY place <= getvariable('generated_per_query'))
    JOIN pairs USING (query_id, positive_id);
"""


class Join:
    """Train pairs and their negatives, joined by DuckDB on disk: memory does not grow with their number.

    Mined negatives belong to the query, generated ones to the pair. The first of the accepted ones are taken in the
    order in which they lie. What is not asked for is not read. Mined passages that were found to answer their query
    give way to the next ones.

    Tables of `database`:
        qrels, mined, generated: the rows of their folders with their place `n`; of `mined` those that are accepted
            or a positive.
        false_mined: `n`, `query_id`, `passage_id` of accepted mined ones that answer their query, `whole`.
        pairs: `pair` (from 0, in the order of the qrels), `query_id`, `positive_id`; then those that are `promoted`.
        negatives: `pair`, `generated`, `place` (from 1), `id`, `violation`, `dense`, `cross`, `positive_score`,
            `scores`.

    Args:
        workspace: its folders are read as streams.
        mined_per_query: mined negatives of a query at most.
        generated_per_query: generated negatives of a pair at most.
        false: what becomes of mined passages that answer their query: promoted, those that do so as a whole are
            positives of further pairs.
    """

    def __init__(
        self, workspace: Workspace, mined_per_query: int, generated_per_query: int, false: FalseNegatives = "remove"
    ) -> None:
        import duckdb

        self._folder = tempfile.TemporaryDirectory(prefix="causalneg-join-")
        self.database = duckdb.connect(
            f"{self._folder.name}/join.duckdb",
            config={"memory_limit": _MEMORY, "temp_directory": self._folder.name, "threads": str(cores())},
        )
        try:
            mined = workspace.read_batches("mined", Mined) if mined_per_query else iter(())
            generated = workspace.read_batches("negatives", Negative) if generated_per_query else iter(())
            judging = verdict_stages(workspace) if mined_per_query and false != "keep" else []
            useful = "verdict = 'accepted' OR relation = 'positive'"
            self.load("qrels", workspace.read_batches("qrels", Qrel), Qrel, _QREL)
            self.load("mined", mined, Mined, _MINED, useful)
            self.load("generated", generated, Negative, _GENERATED, "verdict = 'accepted'")
            self.load("false_negatives", false_negatives(workspace, judging), FalseNegative, _FALSE)
            self.run(
                _JOIN,
                mined_per_query=mined_per_query,
                generated_per_query=generated_per_query,
                promote=false == "promote",
            )
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Join":
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()
        self._folder.cleanup()

    def load(
        self,
        table: str,
        batches: Iterator[pa.RecordBatch],
        record: type[Record],
        names: Sequence[str],
        where: str = "true",
    ) -> None:
        """Stream columns of a folder's rows into a table, those rows for which a condition holds.

        Raises:
            UserError: the folder cannot be read.
        """
        import duckdb

        met: list[UserError] = []  # DuckDB raises an error of its own for what a stream raises
        schema = pa.schema([*(arrow_schema(record).field(name) for name in names), ("n", pa.int64())])

        def numbered() -> Iterator[pa.RecordBatch]:
            start = 0
            try:
                for batch in batches:
                    columns = [*(batch.column(name) for name in names), pa.array(range(start, start + len(batch)))]
                    yield pa.RecordBatch.from_arrays(columns, schema=schema)
                    start += len(batch)
            except UserError as error:
                met.append(error)
                raise

        self.database.register("stream", pa.RecordBatchReader.from_batches(schema, numbered()))
        try:
            self.database.execute(f"CREATE TABLE {table} AS SELECT * FROM stream WHERE {where}")  # noqa: S608 - our own
        except duckdb.Error as error:
            if met:
                raise met[0] from error
            raise
        finally:
            self.database.unregister("stream")

    def run(self, script: str, **values: object) -> None:
        """Run statements that read values by `getvariable`."""
        for name, value in values.items():
            self.database.execute(f"SET VARIABLE {name} = ?", [value])
        for statement in script.split(";")[:-1]:
            self.database.execute(statement)

    def stream(self, query: str) -> Iterator[pa.RecordBatch]:
        """Run a query and stream its rows."""
        yield from self.database.sql(query).to_arrow_reader(_PARTS)

    def number(self, query: str) -> int:
        """Return the one number that a query gives."""
        (value,) = self.database.execute(query).fetchall()[0]
        return int(value)

    @property
    def pairs(self) -> int:
        """How many train pairs there are, with and without negatives."""
        return self.number("SELECT count(*) FROM pairs")

    @property
    def promoted(self) -> int:
        """How many of the pairs have a positive that was mined."""
        return self.number("SELECT count(*) FROM pairs WHERE promoted")

    @property
    def left_out(self) -> int:
        """How many accepted mined passages are no negatives, since they answer their query."""
        return self.number("SELECT count(*) FROM false_mined")

    def rows(self) -> Iterator[RowIds]:
        """Stream the pairs that have a negative, in the order of the qrels."""
        query = """
            SELECT pair, query_id, positive_id, generated, id FROM pairs JOIN negatives USING (pair)
            ORDER BY pair, generated, place
        """
        flat = (
            row for batch in self.stream(query) for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)
        )
        for (_, query_id, positive_id), group in groupby(flat, key=lambda row: row[:3]):
            negatives = list(group)
            yield RowIds(
                query_id,
                positive_id,
                tuple(row[4] for row in negatives if not row[3]),
                tuple(row[4] for row in negatives if row[3]),
            )


def read_selection(
    workspace: Workspace, mined_per_query: int, generated_per_query: int, false: FalseNegatives = "remove"
) -> Selection:
    """Choose the negatives of every train pair of a workspace, by their ids."""
    known: dict[str, str] = {}  # one object for each id, however often it comes
    with Join(workspace, mined_per_query, generated_per_query, false) as join:
        rows = [
            RowIds(
                row.query_id,
                known.setdefault(row.positive_id, row.positive_id),
                tuple(known.setdefault(i, i) for i in row.mined),
                row.generated,
            )
            for row in join.rows()
        ]
        return Selection(rows, join.pairs, join.left_out, join.promoted)


def _generated(workspace: Workspace, ids: set[str]) -> dict[str, Passage]:
    wanted = pa.array(sorted(ids), pa.string())
    found: dict[str, Passage] = {}
    for batch in workspace.read_batches("negatives", Negative) if ids else ():
        chosen = batch.filter(pc.is_in(batch.column("id"), value_set=wanted)).select(["id", "title", "text"])
        found |= {p.id: p for p in from_table(Passage, chosen)}
    return found


def not_there(workspace: Workspace, name: str, row_id: str, folder: str, command: str) -> UserError:
    """Return the error that says which text of a train pair is not there."""
    return UserError(
        f"The {name} {row_id!r} of a train pair is not in {workspace.path(folder)}; run `causalneg {command}` again."
    )


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
            raise not_there(workspace, name, missing[0], folder, command)
    return texts
