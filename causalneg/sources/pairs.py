"""Reads rows of a query, its positives and its negatives: the positives and negatives are the corpus."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from causalneg.errors import UserError
from causalneg.sources.chat import COLUMNS, MARK, as_pair
from causalneg.sources.fields import Fields, Row, unused_columns
from causalneg.sources.items import PAIRS, BrokenError, Dataset, PairRow, SourceRow
from causalneg.sources.names import PAIR_NAMES
from causalneg.sources.opening import Tally, digest_of
from causalneg.sources.tables import as_rows, read_table
from causalneg.sources.values import checked_text


def _is_blank(member: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether there is nothing in a member of a list: none, a blank text, or an object whose text and title are."""
    if isinstance(member, dict):
        return not member or ("text" in member and _is_blank(member["text"]) and _is_blank(member.get("title")))
    return member is None or (isinstance(member, str) and (not member or member.isspace()))


def _text(value: Any, name: str | int, title: str) -> tuple[str, str]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        own = value.get("title")
        return checked_text(own or title, name, may_be_empty=True), checked_text(value.get("text"), f"{name}.text")
    return title, checked_text(value, name)


def _texts(value: Any, name: str | int, title: str = "") -> tuple[list[tuple[str, str]], int]:  # noqa: ANN401 - any JSON
    """Return (title, text) of a text, of an object that holds both, or of a list of either; never of letters.

    Beside them, how many members of the list were left out since there is nothing in them.
    """
    if not isinstance(value, list):
        return [_text(value, name, title)], 0
    filled = [member for member in value if not _is_blank(member)]
    return [_text(member, name, title) for member in filled], len(value) - len(filled)


def _positives(row: Row, fields: Fields) -> tuple[list[tuple[str, str]], int]:
    """Return the positives of a row: of the first field that holds some, and of the numbered ones."""
    first, found = fields.required(row, "positive")
    title = fields.text(row, "title", default="")
    texts, left_out = _texts(found, first, title)
    for name, value in fields.numbered_of(row, "positive"):
        if name != first:
            more, empty = _texts(value, name)
            texts, left_out = texts + more, left_out + empty
    if not texts:
        raise BrokenError("missing_field", f"field {first!r} is empty; give each row a positive there")
    return texts, left_out


def _negatives(row: Row, fields: Fields) -> tuple[list[tuple[str, str]], int]:
    """Return the negatives of a row, from every field that holds some."""
    texts: list[tuple[str, str]] = []
    left_out = 0
    for name, value in fields.several(row, "negative"):
        if isinstance(value, str) and value.isspace():  # an empty cell: this row has one negative less
            continue
        more, empty = _texts(value, name)
        texts, left_out = texts + more, left_out + empty
    return texts, left_out


def pair_of(row: Row, file: str, line: int, fields: Fields, split: str | None = None) -> PairRow:
    """Return the pair that a row holds; `split` is that of the whole file, a row's own goes before it.

    Raises:
        BrokenError: it holds none.
    """
    if MARK in row and "positive" not in fields.given:
        fields.leave_out(name for name in row if name not in COLUMNS)
        row = as_pair(row)
    query = fields.text(row, "query")
    positives, empty = _positives(row, fields)
    negatives, empty_too = _negatives(row, fields)
    own = fields.text(row, "split", default="")
    return PairRow(query, tuple(positives), tuple(negatives), own or split, file, line, empty + empty_too)


def _rows(path: Path, tally: Tally, fields: Fields) -> Iterator[SourceRow]:
    records = read_table(path, tally, fields, COLUMNS)
    yield from as_rows(records, PAIRS, str(path), partial(pair_of, fields=fields))


def read_pairs(path: Path, names: Mapping[str, Any]) -> Dataset:
    """Read a file of pairs or triples.

    Raises:
        UserError: the user's names of fields are wrong, or the file cannot be read.
    """
    tally, fields = Tally(), Fields(names, PAIR_NAMES)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return Dataset(
        digest=partial(digest_of, [path]),
        rows=partial(_rows, path, tally, fields),
        total=size,
        unit="MB",
        done=lambda: tally.bytes,
        unused=lambda: unused_columns({str(path): fields}),
    )
