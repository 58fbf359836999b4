"""Decides, when all rows are there, which queries and judgements are accepted, and writes them."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from causalneg.config import ImportSettings
from causalneg.errors import UserError
from causalneg.records import Qrel, Query, Record, Rejected, arrow_schema
from causalneg.sources.items import EXCERPT, JUDGEMENTS, PASSAGES, QUERIES
from causalneg.sources.outcomes import OUTCOMES
from causalneg.sources.staging import Staging, place
from causalneg.storage import PART_ROWS
from causalneg.workspace import Workspace

_REASONS = {
    "unknown_query": "there is no query {query!r} in the queries",
    "unknown_passage": "there is no passage {passage!r} in the corpus",
    "conflicting_score": "query {query!r} and passage {passage!r} were judged before with another score",
    "without_judgement": "query {query!r} has no judgement",
    "without_positive": "query {query!r} has no positive",
}

# What is no longer accepted gets its kind as `outcome`; the order matters.
_UNKNOWN = """
CREATE INDEX judged ON judgements (query, passage, split, number);
UPDATE judgements SET outcome = 'unknown_query'
    WHERE NOT EXISTS (SELECT 1 FROM queries WHERE id = judgements.query);
UPDATE judgements SET outcome = 'unknown_passage'
    WHERE outcome IS NULL AND NOT EXISTS (SELECT 1 FROM passages WHERE id = judgements.passage);
UPDATE judgements SET outcome = CASE score WHEN first THEN 'repeated' ELSE 'conflicting_score' END
    FROM (
        SELECT number AS again, first_value(score) OVER same AS first, row_number() OVER same AS nth
        FROM judgements WHERE outcome IS NULL
        WINDOW same AS (PARTITION BY query, passage, split ORDER BY number)
    )
    WHERE number = again AND nth > 1;
"""
_SWAPPED = """
SELECT file, min(line) FILTER (WHERE swapped), sum(swapped), count(*) FROM (
    SELECT file, line, outcome IN ('unknown_query', 'unknown_passage')
        AND EXISTS (SELECT 1 FROM passages WHERE id = judgements.query)
        AND EXISTS (SELECT 1 FROM queries WHERE id = judgements.passage) AS swapped
    FROM judgements
) GROUP BY file HAVING 2 * sum(swapped) > count(*) ORDER BY file LIMIT 1
"""
_WITHOUT = """
UPDATE queries SET outcome = 'without_judgement'
    WHERE NOT EXISTS (SELECT 1 FROM judgements WHERE query = queries.id AND outcome IS NULL);
UPDATE queries SET outcome = 'without_positive'
    WHERE outcome IS NULL
    AND NOT EXISTS (SELECT 1 FROM judgements WHERE query = queries.id AND outcome IS NULL AND score > 0);
UPDATE judgements SET outcome = 'without_positive'
    WHERE outcome IS NULL AND query IN (SELECT id FROM queries WHERE outcome = 'without_positive');
"""
_NOT_DRAWN = """
UPDATE judgements SET outcome = 'not_drawn'
    WHERE outcome IS NULL AND split = 'train' AND query NOT IN (SELECT id FROM drawn);
UPDATE queries SET outcome = 'not_drawn'
    WHERE outcome IS NULL
    AND NOT EXISTS (SELECT 1 FROM judgements WHERE query = queries.id AND outcome IS NULL);
"""


def _run(database: sqlite3.Connection, script: str) -> None:
    """Run statements one by one: executescript would commit, and a settling that is killed must leave no trace."""
    for statement in script.split(";"):
        if statement.strip():
            database.execute(statement)


def _splitter(seed: int, test_share: float) -> Callable[[str], str]:
    """Return what chooses the split of a query by itself, so that no other query moves when the data changes."""

    def split(query: str) -> str:
        drawn = int.from_bytes(blake2b(f"{seed}\0{query}".encode(), digest_size=8).digest())
        return "test" if drawn < test_share * 2**64 else "train"

    return split


def _name_splits(database: sqlite3.Connection, seed: int, test_share: float) -> None:
    named = database.execute("SELECT 1 FROM judgements WHERE split IS NOT NULL LIMIT 1").fetchone()
    choose = (lambda query: "train") if named else _splitter(seed, test_share)
    database.create_function("chosen_split", 1, choose, deterministic=True)
    database.execute("UPDATE judgements SET split = chosen_split(query) WHERE split IS NULL")


def _draw(database: sqlite3.Connection, limit: int, seed: int) -> None:
    """Reject the train judgements of all but `limit` queries, drawn by seed."""
    train = "FROM judgements WHERE outcome IS NULL AND split = 'train'"
    (count,) = database.execute(f"SELECT count(DISTINCT query) {train}").fetchone()
    if count <= limit:
        return
    kept = set(random.Random(seed).sample(range(count), limit))  # noqa: S311 - a sample, not a secret
    ids = database.execute(f"SELECT DISTINCT query {train} ORDER BY query").fetchall
    database.execute("CREATE TEMP TABLE drawn (id TEXT PRIMARY KEY)")
    chosen = ((query,) for number, (query,) in enumerate(ids()) if number in kept)
    database.executemany("INSERT INTO drawn VALUES (?)", chosen)
    _run(database, _NOT_DRAWN)


def _stop_if_swapped(database: sqlite3.Connection) -> None:
    """Make sure that in no file most judgements name a passage as query and a query as passage.

    Raises:
        UserError: in one they do.
    """
    found = database.execute(_SWAPPED).fetchone()
    if found:
        file, line, swapped, judged = found
        raise UserError(
            f"{place(file, line)}: {swapped:,} of {judged:,} judgements name a passage where the query belongs and a "
            "query where the passage does; the columns are query-id, corpus-id, score, in this order unless the first "
            "line names them."
        )


def _stop_if_strict(database: sqlite3.Connection) -> None:
    kinds = ", ".join(f"'{kind}'" for kind, outcome in OUTCOMES.items() if outcome.strict)
    first = database.execute(
        f"SELECT outcome, query, passage, file, line FROM judgements WHERE outcome IN ({kinds}) "  # noqa: S608
        "ORDER BY number LIMIT 1"
    ).fetchone()
    if first:
        kind, query, passage, file, line = first
        raise UserError(f"{place(file, line)}: {_REASONS[kind].format(query=query, passage=passage)}.")


def settle(staging: Staging, settings: ImportSettings, seed: int) -> None:
    """Decide what becomes of every query and judgement, and count it.

    Raises:
        UserError: the corpus is empty, no query has a positive, or a row is rejected and the import is strict.
    """
    database = staging.database
    accepted = staging.tally.get(PASSAGES, {}).get("accepted", 0)
    if not accepted:
        raise UserError("The corpus is empty; it needs at least one passage.")
    _name_splits(database, seed, settings.test_share)
    if settings.duplicate_texts == "merge":
        database.execute(
            "UPDATE judgements SET passage = p.kept FROM passages p WHERE p.id = judgements.passage "
            "AND p.kept IS NOT NULL"
        )
    else:
        (distinct,) = database.execute("SELECT count(*) FROM (SELECT 1 FROM passages GROUP BY hash)").fetchone()
        staging.note("duplicate_text", accepted - distinct)
    _run(database, _UNKNOWN)
    _stop_if_swapped(database)
    if settings.strict:
        _stop_if_strict(database)
    _run(database, _WITHOUT)
    if not database.execute("SELECT 1 FROM judgements WHERE outcome IS NULL AND score > 0 LIMIT 1").fetchone():
        hint = _hint(database)
        raise UserError(f"No query has a positive; the relevance judgements need at least one score above 0{hint}.")
    if settings.max_train_queries is not None:
        _draw(database, settings.max_train_queries, seed)
    for table in (QUERIES, JUDGEMENTS):
        for kind, number in database.execute(f"SELECT outcome, count(*) FROM {table} GROUP BY outcome"):  # noqa: S608
            staging.settled(table, OUTCOMES[kind].becomes if kind else "accepted", number, kind)


def _hint(database: sqlite3.Connection) -> str:
    """Return how many judgements name something that is not there, if any do."""
    (number,) = database.execute("SELECT count(*) FROM judgements WHERE outcome LIKE 'unknown_%'").fetchone()
    return f", and {number:,} of them name a query or a passage that is not there" if number else ""


def query_counts(database: sqlite3.Connection) -> dict[str, int]:
    """Return how many queries each split has."""
    return dict(
        database.execute(
            "SELECT split, count(DISTINCT query) FROM judgements WHERE outcome IS NULL GROUP BY split ORDER BY split"
        )
    )


def _write(workspace: Workspace, folder: str, record: type[Record], rows: Iterator[tuple[Any, ...]]) -> None:
    schema, part = arrow_schema(record), 0
    chunk: list[tuple[Any, ...]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == PART_ROWS:
            _write_part(workspace, folder, part, schema, chunk)
            part, chunk = part + 1, []
    if chunk:
        _write_part(workspace, folder, part, schema, chunk)


def _write_part(workspace: Workspace, folder: str, part: int, schema: pa.Schema, rows: list[tuple[Any, ...]]) -> None:
    columns = [pa.array([row[n] for row in rows], field.type) for n, field in enumerate(schema)]
    workspace.write_table(f"{folder}/part-{part:06d}.parquet", pa.Table.from_arrays(columns, schema=schema))


def _rejected(database: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Yield the rejected rows in the order of `records.Rejected`; those beyond max_train_queries are only counted."""
    yield from database.execute("SELECT rows, kind, reason, file, line, excerpt FROM rejected ORDER BY number")
    kinds = ", ".join(f"'{kind}'" for kind in _REASONS)
    for rows, what in ((QUERIES, "id, '', text"), (JUDGEMENTS, "query, passage, score")):
        found = database.execute(
            f"SELECT outcome, file, line, {what} FROM {rows} WHERE outcome IN ({kinds}) ORDER BY number"  # noqa: S608
        )
        for kind, file, line, query, passage, last in found:
            shown = f"{query}\t{passage}\t{last}" if passage else last
            yield rows, kind, _REASONS[kind].format(query=query, passage=passage), file, line, str(shown)[:EXCERPT]


def write_settled(staging: Staging, workspace: Workspace) -> None:
    """Write queries, judgements, and the rejected rows if there are any."""
    database = staging.database
    _write(
        workspace,
        "queries",
        Query,
        database.execute("SELECT id, text FROM queries WHERE outcome IS NULL ORDER BY number"),
    )
    _write(
        workspace,
        "qrels",
        Qrel,
        database.execute("SELECT query, passage, score, split FROM judgements WHERE outcome IS NULL ORDER BY number"),
    )
    _write(workspace, "rejected", Rejected, _rejected(database))
