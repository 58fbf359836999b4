"""Reads rows of a query, its positives and its negatives: the positives and negatives are the corpus."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from causalneg.errors import UserError
from causalneg.sources.chat import MARK, as_pair
from causalneg.sources.fields import Fields, Names, Row, checked_text
from causalneg.sources.items import PAIRS, BrokenError, Dataset, PairRow, SourceRow
from causalneg.sources.opening import Tally, digest_of
from causalneg.sources.tables import as_rows, read_table

NAMES: dict[str, Names] = {
    "query": ("query", "anchor", "question"),
    "positive": (
        *("positive", "positives", "pos", "positive_passages", "positive_ctxs"),
        *("passage", "context", "answer", "document", "response"),
    ),
    "negative": (
        *("negative", "negatives", "neg", "negative_passages", "hard_negatives", "hard_negative_ctxs"),
        *("rejected_response",),
    ),
    "title": ("title",),
    "split": ("split",),
}
_NUMBERED = re.compile(r"negative_[0-9]{1,6}")
_CHAT = ("messages", MARK, "negative_messages")


def _text(value: Any, name: str | int, title: str) -> tuple[str, str]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        own = value.get("title")
        return checked_text(own or title, name, may_be_empty=True), checked_text(value.get("text"), f"{name}.text")
    return title, checked_text(value, name)


def _texts(value: Any, name: str | int, title: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any JSON
    """Yield (title, text) of a text, of an object that holds both, or of a list of either; never of letters."""
    for element in value if isinstance(value, list) else [value]:
        yield _text(element, name, title)


def _negatives(row: Row, fields: Fields) -> Iterator[tuple[str, str]]:
    """Yield the negatives of a row, from every field that holds some, in the order of their names."""
    names = list(fields.names["negative"])
    if "negative" not in fields.given:
        numbered = [n for n in row if isinstance(n, str) and _NUMBERED.fullmatch(n)]
        names += sorted(numbered, key=lambda n: int(str(n).split("_")[1]))
    for name in names:
        value = row.get(name)
        if value is not None and value != "":  # an empty cell: this row has one negative less
            yield from _texts(value, name)


def pair_of(row: Row, file: str, line: int, fields: Fields, split: str | None = None) -> PairRow:
    """Return the pair that a row holds; `split` is that of the whole file, a row's own goes before it.

    Raises:
        BrokenError: it holds none.
    """
    if MARK in row and "positive" not in fields.given:
        row = as_pair(row)
    query = fields.text(row, "query")
    name, found = fields.required(row, "positive")
    positives = tuple(_texts(found, name, fields.text(row, "title", default="")))
    if not positives:
        raise BrokenError("missing_field", f"field {name!r} is empty; give each row a positive there")
    own = fields.text(row, "split", default="")
    return PairRow(query, positives, tuple(_negatives(row, fields)), own or split, file, line)


def wanted_columns(fields: Fields) -> Callable[[str], bool]:
    """Return which columns pairs can come from; the others are not read."""
    names = {name for several in fields.names.values() for name in several} | set(_CHAT)
    return lambda name: name in names or bool(_NUMBERED.fullmatch(name))


def _rows(path: Path, tally: Tally, fields: Fields) -> Iterator[SourceRow]:
    records = read_table(path, tally, fields, wanted_columns(fields))
    yield from as_rows(records, PAIRS, str(path), partial(pair_of, fields=fields))


def read_pairs(path: Path, names: Mapping[str, Any]) -> Dataset:
    """Read a file of pairs or triples.

    Raises:
        UserError: the user's names of fields are wrong, or the file cannot be read.
    """
    tally, fields = Tally(), Fields(names, NAMES)
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
    )
