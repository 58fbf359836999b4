"""Takes the rows of a data set one by one: accepted passages go to Parquet, everything else to a file of SQLite.

Nothing that grows with the data set is kept in memory. What was taken is committed whenever a part of the corpus is
on the disk, together with the number of rows read, so that a killed import goes on there and takes no row twice.
"""

import json
import sqlite3
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from causalneg.config import ImportSettings
from causalneg.errors import UserError
from causalneg.records import Passage, arrow_schema, content_id
from causalneg.sources.items import (
    JUDGEMENTS,
    PAIRS,
    PASSAGES,
    QUERIES,
    BrokenRow,
    JudgementRow,
    PairRow,
    PassageRow,
    QueryRow,
    SourceRow,
)
from causalneg.sources.names import usual_split
from causalneg.sources.outcomes import BROKEN, OUTCOMES
from causalneg.sources.texts import settled, whole
from causalneg.sources.values import excerpt
from causalneg.storage import PART_ROWS
from causalneg.workspace import Workspace

_PART_CHARACTERS = 50_000_000  # of a part's texts, so that a part of long texts fits into memory, too
_COMMIT_ROWS = 100_000  # rows between two commits where few passages come
_HOPELESS_ROWS = 1000  # when so many have no good one among them, the rest is not read
_SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -8000;
CREATE TABLE IF NOT EXISTS passages (id TEXT PRIMARY KEY, hash BLOB, kept TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queries (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, text TEXT, file TEXT, line INTEGER, outcome TEXT);
CREATE TABLE IF NOT EXISTS judgements (
    number INTEGER PRIMARY KEY, query TEXT, passage TEXT, score INTEGER, split TEXT, file TEXT, line INTEGER,
    outcome TEXT);
CREATE TABLE IF NOT EXISTS rejected (
    number INTEGER PRIMARY KEY, rows TEXT, kind TEXT, reason TEXT, file TEXT, line INTEGER, excerpt TEXT);
CREATE TABLE IF NOT EXISTS state (json TEXT);
"""
_MERGING = "CREATE INDEX IF NOT EXISTS passages_hash ON passages (hash) WHERE kept IS NULL;"


def place(file: str, line: int) -> str:
    """Return how the place of a row is named to the user."""
    by_lines = file.endswith((".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".gz", ".zst"))
    return f"{file}, {'line' if by_lines else 'row'} {line}"


class Staging:
    """The rows taken so far.

    Args:
        path: the SQLite file; what an earlier run committed there is taken up.
        settings: what becomes of over-long and repeated texts, and whether broken rows end the import.

    Raises:
        UserError: another import is at work on the file, or it cannot be written.
    """

    def __init__(self, path: Path, settings: ImportSettings) -> None:
        self._settings, self._path = settings, path
        self._merging = settings.duplicate_texts == "merge"
        self._ids: list[str] = []
        self._titles: list[str] = []
        self._texts: list[str] = []
        self._metadata: list[str] = []
        self._characters = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.database = self._open()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # cut off by a crash of the machine: begin anew
            path.unlink()
            self.database = self._open()
        found = self.database.execute("SELECT json FROM state").fetchone()
        state = json.loads(found[0]) if found else {}
        self.consumed: int = state.get("consumed", 0)
        self._parts: int = state.get("parts", 0)
        self.tally: dict[str, dict[str, int]] = state.get("tally", {})
        self.outcomes: dict[str, int] = state.get("outcomes", {})
        self._committed = self.consumed

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, isolation_level=None, timeout=1)
        try:
            database.executescript(_SCHEMA + (_MERGING if self._merging else ""))
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()  # what was not committed is taken anew by the next run

    # Counting

    def _count(self, rows: str, became: str, number: int = 1) -> None:
        tally = self.tally.get(rows)
        if tally is None:
            tally = self.tally[rows] = {"read": 0, "accepted": 0, "merged": 0, "rejected": 0}
        tally[became] += number

    def note(self, kind: str, number: int = 1) -> None:
        """Count rows of a kind that is told in the summary."""
        if number:
            self.outcomes[kind] = self.outcomes.get(kind, 0) + number

    def settled(self, rows: str, became: str, number: int, kind: str | None = None) -> None:
        """Count what became of rows that could be judged only when all were there."""
        if number:
            self._count(rows, became, number)
        if kind:
            self.note(kind, number)

    def _reject(self, rows: str, kind: str, reason: str, shown: str, file: str, line: int) -> None:
        if self._settings.strict and OUTCOMES[kind].strict:
            raise UserError(f"{place(file, line)}: {reason}.")
        self._count(rows, "rejected")
        self.note(kind)
        values = (rows, kind, whole(reason), file, line, whole(shown))
        self.database.execute(
            "INSERT INTO rejected (rows, kind, reason, file, line, excerpt) VALUES (?, ?, ?, ?, ?, ?)", values
        )

    # Taking rows

    def add(self, row: SourceRow) -> None:
        """Take a row.

        Raises:
            UserError: the row is broken and the import is strict.
        """
        self.consumed += 1
        if type(row) is PassageRow:
            self._passage(*row)
        elif type(row) is JudgementRow:
            self._judgement(*row)
        elif type(row) is QueryRow:
            self._query(*row)
        elif type(row) is PairRow:
            self._pair(row)
        elif type(row) is BrokenRow:
            self._count(row.rows, "read")
            self._reject(*row)

    def _passage(
        self, name: str, title: str, text: str, file: str, line: int, metadata: str = "", left_out: int = 0
    ) -> None:
        name, title, text = whole(name), self._text(title), self._text(text)
        if left_out:
            self.note("metadata_value", left_out)
        digest = _digest(title, text)
        kept = None
        if self._merging:
            same = self.database.execute("SELECT id FROM passages WHERE hash = ? AND kept IS NULL", (digest,))
            kept = next((first for (first,) in same if first != name), None)
        self._count(PASSAGES, "read")
        if not self.database.execute("INSERT OR IGNORE INTO passages VALUES (?, ?, ?)", (name, digest, kept)).rowcount:
            (first,) = self.database.execute("SELECT hash FROM passages WHERE id = ?", (name,)).fetchone()
            self._seen_before(PASSAGES, first == digest, name, f"{title} {text}", file, line)
        elif kept is not None:
            self.settled(PASSAGES, "merged", 1, "merged_text")
        else:
            self._count(PASSAGES, "accepted")
            self._ids.append(name)
            self._titles.append(title)
            self._texts.append(text)
            self._metadata.append(whole(metadata))
            self._characters += len(title) + len(text) + len(metadata)

    def _query(self, name: str, text: str, file: str, line: int) -> None:
        name, text = whole(name), self._text(text)
        self._count(QUERIES, "read")
        values = (name, text, file, line)
        taken = self.database.execute(
            "INSERT OR IGNORE INTO queries (id, text, file, line) VALUES (?, ?, ?, ?)", values
        )
        if not taken.rowcount:
            (first,) = self.database.execute("SELECT text FROM queries WHERE id = ?", (name,)).fetchone()
            self._seen_before(QUERIES, first == text, name, text, file, line)

    def _seen_before(self, rows: str, same: bool, name: str, text: str, file: str, line: int) -> None:
        if same:
            self.settled(rows, "merged", 1, "repeated")
        else:
            reason = f"the id {name!r} stands on an earlier row, too, with another text; ids must be unique"
            self._reject(rows, "duplicate_id", reason, excerpt(text), file, line)

    def _judgement(self, query: str, passage: str, score: int, split: str | None, file: str, line: int) -> None:
        self._count(JUDGEMENTS, "read")
        values = (whole(query), whole(passage), score, split and usual_split(whole(split)), file, line)
        self.database.execute(
            "INSERT INTO judgements (query, passage, score, split, file, line) VALUES (?, ?, ?, ?, ?, ?)", values
        )

    def _pair(self, row: PairRow) -> None:
        self._count(PAIRS, "read")
        self._count(PAIRS, "accepted")
        self.note("empty_member", row.left_out)
        file, line = row.file, row.line
        text = self._shortened(row.query)
        query = content_id("query", text)
        self._query(query, row.query, file, line)
        for score, passages in ((1, row.positives), (0, row.negatives)):
            for title, body in passages:
                passage = content_id("passage", self._shortened(title), self._shortened(body))
                self._passage(passage, title, body, file, line)
                self._judgement(query, passage, score, row.split, file, line)

    def _shortened(self, text: str) -> str:
        return settled(text)[0][: self._settings.max_characters]

    def _text(self, text: str) -> str:
        if "&" in text or not text.isascii():  # there may be something to mend or to count
            text, kinds = settled(text)
            for kind in kinds:
                self.note(kind)
        if len(text) <= self._settings.max_characters:
            return text
        self.note("cut")
        return text[: self._settings.max_characters]

    # Keeping them

    @property
    def _columns(self) -> tuple[list[str], ...]:
        """The passages not yet written, in the order of `records.Passage`."""
        return self._ids, self._titles, self._texts, self._metadata

    def parts(self) -> list[str]:
        """Return the names of the corpus's files written so far."""
        return [_part(number) for number in range(self._parts)]

    @property
    def due(self) -> bool:
        """Whether it is time for `keep`."""
        return (
            len(self._ids) >= PART_ROWS
            or self._characters >= _PART_CHARACTERS
            or self.consumed - self._committed >= _COMMIT_ROWS
        )

    def keep(self, workspace: Workspace) -> None:
        """Write the passages taken since the last time to the corpus, and commit everything taken so far."""
        if self._ids:
            columns = [pa.array(values, pa.string()) for values in self._columns]
            table = pa.Table.from_arrays(columns, schema=arrow_schema(Passage))
            workspace.write_table(_part(self._parts), table)
            self._parts += 1
        for values in self._columns:
            values.clear()
        self._characters = 0
        state = {
            "consumed": self.consumed,
            "parts": self._parts,
            "tally": self.tally,
            "outcomes": self.outcomes,
        }
        self.database.execute("DELETE FROM state")
        self.database.execute("INSERT INTO state VALUES (?)", (json.dumps(state),))
        self.database.execute("COMMIT")
        self.database.execute("BEGIN IMMEDIATE")
        self._committed = self.consumed

    def check_broken(self, final: bool) -> None:
        """Make sure that not so many rows are broken that the data must be meant otherwise.

        Args:
            final: all rows were taken; before, only rows without a single good one are too many.

        Raises:
            UserError: too many rows of a kind are broken; it names the first.
        """
        if not final and not any(t["read"] == t["rejected"] >= _HOPELESS_ROWS for t in self.tally.values()):
            return
        kinds = ", ".join(f"'{kind}'" for kind in BROKEN)
        found = self.database.execute(
            f"SELECT rows, count(*), min(number) FROM rejected WHERE kind IN ({kinds}) GROUP BY rows"  # noqa: S608
        )
        for rows, broken, first in found.fetchall():
            read, share = self.tally[rows]["read"], broken / self.tally[rows]["read"]
            if share > self._settings.max_rejected_share and (final or (share == 1 and read >= _HOPELESS_ROWS)):
                reason, file, line = self.database.execute(
                    "SELECT reason, file, line FROM rejected WHERE number = ?", (first,)
                ).fetchone()
                raise UserError(
                    f"{place(file, line)}: {reason} ({broken:,} of {read:,} {rows} are broken, "
                    f"import.max_rejected_share is {self._settings.max_rejected_share})."
                )


def _part(number: int) -> str:
    return f"corpus/part-{number:06d}.parquet"


def _digest(title: str, text: str) -> bytes:
    return blake2b(f"{title}\0{text}".encode(), digest_size=16).digest()
