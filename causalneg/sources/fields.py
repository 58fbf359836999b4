"""Finds the fields of a row by the user's mapping or by the names that are common, and checks what is in them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from causalneg.config import nearest
from causalneg.errors import UserError
from causalneg.records import metadata_text
from causalneg.sources.items import EXCERPT, BrokenError, PassageRow, QueryRow

Row = Mapping[Any, Any]  # by name, or by number where a file has no header
Names = Sequence[str | int]

# What fields may hold, and under which names they are looked for, the first that is there.
CORPUS_NAMES: dict[str, Names] = {
    "id": ("_id", "id", "doc_id", "docid", "passage_id", "pid"),
    "title": ("title",),
    "text": ("text", "contents", "content", "passage", "body"),
    "metadata": ("metadata",),
}
TOPIC_NAMES: dict[str, Names] = {
    "id": ("_id", "id", "query_id", "qid", "topic", "number"),
    "text": ("text", "query", "question", "title"),
}
_SCORE = re.compile(r"\s*[+-]?[0-9]{1,9}\s*", re.ASCII)


class Fields:
    """The names under which a row's fields are looked for.

    Args:
        given: the user's names (columns by number, from 1, where a file has no header), one or several per field.
        known: the fields that there are, with the names tried where the user gives none.

    Raises:
        UserError: the user names a field that there is not.
    """

    def __init__(self, given: Mapping[str, Any], known: Mapping[str, Names]) -> None:
        for name in given:
            if name not in known:
                raise UserError(
                    f"import.fields: there is no field {name!r}{nearest(name, list(known))} "
                    f"(fields are {', '.join(known)})."
                )
        self.given = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
        self.names: dict[str, Names] = {**known, **self.given}
        self.numbered = any(isinstance(n, int) for names in self.given.values() for n in names)
        if self.numbered and any(isinstance(n, str) for names in self.given.values() for n in names):
            raise UserError("import.fields: give the columns all by name or all by number, not both.")

    def check(self, columns: Sequence[str | int], where: str) -> None:
        """Make sure that the columns which the user named are there.

        Raises:
            UserError: one is not.
        """
        for field, names in self.given.items():
            for name in names:
                if name not in columns:
                    hint = nearest(str(name), [str(c) for c in columns])
                    raise UserError(f"{where} has no column {name!r}, named for {field} in import.fields{hint or '.'}")

    def find(self, row: Row, field: str) -> tuple[str | int, Any]:
        """Return the name under which a field is there, and what it holds; None where it is missing."""
        names = self.names[field]
        for name in names:
            value = row.get(name)
            if value is not None:
                return name, value
        return names[0] if names else field, None

    def required(self, row: Row, field: str) -> tuple[str | int, Any]:
        """Return the name under which a field is there, and what it holds, which may be a null.

        Raises:
            BrokenError: it is missing; it names the fields that are there.
        """
        name, value = self.find(row, field)
        if value is None and not any(name in row for name in self.names[field]):
            there = ", ".join(str(n) for n in row)[:100] or "none"
            raise BrokenError("missing_field", f"field {name!r} is missing, there is {there}; see import.fields")
        return name, value

    def text(self, row: Row, field: str, default: str | None = None) -> str:
        """Return a field's text.

        Raises:
            BrokenError: it is missing, empty, or no text, and there is no default.
        """
        name, value = self.find(row, field) if default is not None else self.required(row, field)
        return checked_text(default if value is None else value, name, may_be_empty=default is not None)

    def id(self, row: Row) -> str:
        """Return a row's id, which may also be a whole number.

        Raises:
            BrokenError: it is missing, empty, or neither text nor a whole number.
        """
        name, value = self.required(row, "id")
        if type(value) is int:
            return str(value)
        if value == "":
            raise BrokenError("missing_field", f"field {name!r} is empty; give each row an id there")
        return checked_text(value, name)

    def metadata(self, row: Row) -> str:
        """Return a passage's metadata, which is an object or the text of one; "" where there is none.

        Raises:
            BrokenError: it is something else, or JSON cannot hold it.
        """
        name, value = self.find(row, "metadata")
        return checked_metadata(value, name)


def checked_metadata(value: Any, name: str | int) -> str:  # noqa: ANN401 - it may be anything
    """Return what must be an object, or the text of one, as rows hold it; "" where it is missing or empty.

    Raises:
        BrokenError: it is something else, or JSON cannot hold it.
    """
    if value is None or value == "":
        return ""
    try:
        found = json.loads(value) if isinstance(value, str) else value
        if isinstance(found, Mapping):
            return metadata_text(found)
    except (ValueError, RecursionError):
        found = None
    raise BrokenError(
        "wrong_metadata",
        f"field {name!r} is no JSON object but {excerpt(value)[:40]!r}; give an object, "
        "or leave the field out with import.fields={metadata: []}",
    )


def checked_text(value: Any, name: str | int, may_be_empty: bool = False) -> str:  # noqa: ANN401 - it may be anything
    """Return a value that must be a text.

    Raises:
        BrokenError: it is none, or an empty one where that is not allowed.
    """
    if type(value) is str and (may_be_empty or (value and not value.isspace())):
        return value
    if value is None:
        raise BrokenError("missing_field", f"field {name!r} is missing; give each row a text there")
    if isinstance(value, str):
        raise BrokenError("empty_text", f"field {name!r} is empty; give each row a text there")
    raise BrokenError("wrong_type", f"field {name!r} is no text but {type(value).__name__}; give each row a text there")


def score_of(value: Any) -> int:  # noqa: ANN401 - it may be anything
    """Return a relevance score.

    Raises:
        BrokenError: it is no whole number of at most nine digits.
    """
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str) or not _SCORE.fullmatch(value):
        raise BrokenError("wrong_score", f"a whole-number score is needed, not {str(value)[:20]!r}")
    return int(value)


def passage_of(row: Row, file: str, line: int, fields: Fields) -> PassageRow:
    """Return the passage that a row holds; one with a title needs no text.

    Raises:
        BrokenError: it holds none.
    """
    name, text = fields.required(row, "text")
    title = fields.text(row, "title", default="")
    has_title = bool(title) and not title.isspace()
    text = checked_text("" if has_title and text is None else text, name, may_be_empty=has_title)
    return PassageRow(fields.id(row), title, text, file, line, fields.metadata(row))


def query_of(row: Row, file: str, line: int, fields: Fields) -> QueryRow:
    """Return the query that a row holds.

    Raises:
        BrokenError: it holds none.
    """
    return QueryRow(fields.id(row), fields.text(row, "text"), file, line)


def excerpt(content: object) -> str:
    """Return the beginning of what a row holds, for the user to recognise it."""
    if isinstance(content, bytes):
        return content[: 4 * EXCERPT].decode("utf-8", "replace")[:EXCERPT].strip()
    if isinstance(content, Mapping):
        return ", ".join(f"{name}: {_shown(value)}" for name, value in content.items())[:EXCERPT]
    return _shown(content)


def _shown(value: object) -> str:
    try:
        return str(value)[:EXCERPT].strip()
    except RecursionError:  # JSON may be nested as deeply as Python can read it, and deeper than it can show it
        return "…"
