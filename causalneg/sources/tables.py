"""Reads files of rows, whatever their format, as dictionaries: JSONL, JSON, CSV, TSV, Parquet."""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from causalneg.errors import UserError
from causalneg.sources.fields import Fields, Row
from causalneg.sources.items import BrokenError, BrokenRow, SourceRow
from causalneg.sources.jsonarray import array_elements, array_member
from causalneg.sources.opening import Tally, numbered_lines, opened, plain_suffix
from causalneg.sources.values import excerpt

JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*JSON_LINES, ".json", ".csv", ".tsv", ".parquet")
_MEMBERS = ("data", "rows")  # of an object that is a whole file, those that may hold the rows
_DELIMITERS = ("\t", ",", ";", "|")
_CELL_CHARACTERS = 16 << 20  # an open quote swallows at most so much
_BATCH = 1000  # rows of a table turned into Python at a time


class Fault(NamedTuple):
    """Why a row cannot be read, and how it begins."""

    kind: str
    reason: str
    excerpt: str


Record = tuple[int, Row | Fault]
TOO_LONG = Fault("line_too_long", "the line is longer than 64 MiB", "")


def decoded(raw: bytes | None) -> str | Fault:
    """Return a line's text, or why it has none."""
    if raw is None:
        return TOO_LONG
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Fault("not_utf8", "the text is not UTF-8; convert the file", excerpt(raw))


def _object(value: Any, shown: object) -> Row | Fault:  # noqa: ANN401 - any JSON
    if type(value) is dict:
        return value
    reason = f"a JSON object is needed, not a {type(value).__name__}"
    return Fault("invalid_row", reason, excerpt(shown))


def json_lines(file: BinaryIO) -> Iterator[Record]:
    """Stream JSON objects, one a line; empty lines are left out."""
    for number, raw in numbered_lines(file):
        line = decoded(raw)
        if isinstance(line, Fault):
            yield number, line
        elif line and not line.isspace():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                why = getattr(error, "msg", None) or str(error)
                remedy = "; name it .json if it is one array" if number == 1 and line.lstrip()[0] == "[" else ""
                yield number, Fault("invalid_row", f"not valid JSON ({why}){remedy}", excerpt(line))
                continue
            yield number, _object(value, line)


def _is_array(file: io.BufferedReader) -> bool:
    return file.peek(64)[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _is_lines(file: io.BufferedReader) -> bool:
    """Whether a file's first line is an object by itself, and another line follows."""
    lines = (raw for _, raw in numbered_lines(file) if raw is None or raw.strip())
    first = next(lines, None)
    try:
        return first is not None and isinstance(json.loads(first), dict) and next(lines, b"") != b""
    except (ValueError, RecursionError):
        return False


def _rows_member(path: Path) -> str | None:
    """Return the member that holds the rows, where a file is one object; None where it is an array or has lines."""
    for holds_rows in (_is_array, _is_lines):
        with opened(path, Tally()) as file:
            if holds_rows(cast(io.BufferedReader, file)):
                return None
    with opened(path, Tally()) as file:
        return array_member(file, str(path), _MEMBERS)


def _json(path: Path, file: BinaryIO, where: str) -> Iterator[Record]:
    """Stream the objects of a JSON array, numbered from 1, or of a file that holds one a line.

    The array may be a member of an object, as `{"data": […]}`.
    """
    member = _rows_member(path)
    if member is None and not _is_array(cast(io.BufferedReader, file)):
        yield from json_lines(file)
        return
    for number, value in enumerate(array_elements(file, where, member), 1):
        yield number, _object(value, value)


def _delimiter(first: str, usual: str) -> str:
    """Return what parts the columns: the usual one unless it parts nothing in the first line, and another does."""
    return usual if usual in first else next((d for d in _DELIMITERS if d in first), usual)


def _separated(file: BinaryIO, where: str, usual: str, fields: Fields) -> Iterator[Record]:
    """Stream the rows of a CSV or TSV file; in TSV, quotes are letters like others, as is usual for corpora."""
    too_long: list[int] = []

    def texts() -> Iterator[str]:
        for number, raw in numbered_lines(file):
            if raw is None:
                too_long.append(number)
            yield "\n" if raw is None else raw.decode("utf-8", "surrogateescape")

    lines = texts()
    first = next(lines, "")
    delimiter = _delimiter(first, usual)
    columns: list[Any] = []
    for number, row in _cells_of(chain([first], lines), delimiter, quoted=(usual, delimiter) != ("\t", "\t")):
        while too_long:
            yield too_long.pop(0), TOO_LONG
        if isinstance(row, Fault):
            yield number, row
        elif columns:
            yield number, _named(row, columns)
        else:
            columns = list(range(1, len(row) + 1)) if fields.numbered else _header(row, where)
            fields.check(columns, where)
            if fields.numbered:
                yield number, _named(row, columns)
    yield from ((number, TOO_LONG) for number in too_long)


def _cells_of(lines: Iterator[str], delimiter: str, quoted: bool) -> Iterator[tuple[int, list[str] | Fault]]:
    """Stream the cells of each row with the row's first line; empty lines are left out."""
    csv.field_size_limit(_CELL_CHARACTERS)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        first = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            lines_read = f"lines {first} to {rows.line_num}" if rows.line_num > first else "the line"
            yield first, Fault("invalid_row", f"{lines_read} cannot be taken apart ({error})", "")
            continue
        if row:
            yield first, row


def _header(row: list[str], where: str) -> list[str]:
    names = [name.strip() for name in row]
    twice = [n for n in names if n and names.count(n) > 1]
    if twice:
        raise UserError(f"{where}: two columns are called {excerpt(twice[0])!r}; give each a name of its own.")
    return names


def _named(row: list[str], columns: list[Any]) -> Row | Fault:
    if len(row) != len(columns):
        return Fault("invalid_row", f"{len(row)} columns where there must be {len(columns)}", excerpt(" | ".join(row)))
    joined = "".join(row)
    if not joined.isascii():
        try:
            joined.encode()
        except UnicodeEncodeError:
            shown = " | ".join(row).encode("utf-8", "surrogateescape")
            return Fault("not_utf8", "the text is not UTF-8; convert the file", excerpt(shown))
    return dict(zip(columns, row, strict=True))


def arrow_rows(batch: pa.RecordBatch, first: int) -> Iterator[Record]:
    """Stream the rows of an Arrow batch, numbered from `first`."""
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:  # Arrow takes any bytes for a text until someone reads it
        for position in range(batch.num_rows):
            try:
                yield first + position, batch.slice(position, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield first + position, Fault("not_utf8", "a text is not UTF-8; write the file anew", "")
        return
    yield from enumerate(rows, first)


def _parquet(file: BinaryIO, where: str, fields: Fields, also: Collection[str]) -> Iterator[Record]:
    try:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        names = parquet.schema_arrow.names
    except UnicodeDecodeError as error:
        raise UserError(f"{where} has a column whose name is not UTF-8; write it anew.") from error
    fields.check(names, where)
    number = 1
    for batch in parquet.iter_batches(batch_size=_BATCH, columns=fields.wanted(names, also)):
        yield from arrow_rows(batch, number)
        number += batch.num_rows


def read_table(path: Path, tally: Tally, fields: Fields, also: Collection[str] = ()) -> Iterator[Record]:
    """Stream a file's rows with their line (or, in JSON arrays and Parquet, their number).

    Args:
        path: one of `SUFFIXES`; all but Parquet may be compressed.
        tally: counts the bytes read.
        fields: the user's names, which must be there where columns have names.
        also: columns of a Parquet file that are read beside those which a field can come from.

    Raises:
        UserError: the file is missing or damaged, or a column that the user names is missing.
    """
    suffix, where = plain_suffix(path), str(path)
    with opened(path, tally) as file:
        if suffix in JSON_LINES:
            yield from json_lines(file)
        elif suffix == ".json":
            yield from _json(path, file, where)
        elif suffix == ".parquet":
            yield from _parquet(file, where, fields, also)
        else:
            yield from _separated(file, where, "\t" if suffix == ".tsv" else ",", fields)


def as_rows(
    records: Iterator[Record], rows: str, file: str, make: Callable[[Row, str, int], SourceRow]
) -> Iterator[SourceRow]:
    """Turn records into rows of the data set, those with a fault into broken ones.

    Args:
        records: what a file holds.
        rows: what its rows should be, as they are counted.
        file: how the file is named to the user.
        make: takes a record, file and line; raises BrokenError.
    """
    for line, record in records:
        if isinstance(record, Fault):
            yield BrokenRow(rows, *record, file, line)
            continue
        try:
            yield make(record, file, line)
        except BrokenError as error:
            yield BrokenRow(rows, error.kind, str(error), excerpt(record), file, line)
