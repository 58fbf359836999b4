"""Finds the fields of a row by the user's mapping or by the names that are common."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from causalneg.config import nearest
from causalneg.errors import UserError
from causalneg.sources.items import BrokenError, PassageRow, QueryRow
from causalneg.sources.names import NUMBERED, Names, folded, numbered
from causalneg.sources.values import checked_metadata, checked_text, is_empty

Row = Mapping[Any, Any]  # by name, or by number where a file has no header

_SHAPES = 1000  # shapes of rows that are remembered, and columns not used that are


@dataclass(frozen=True)
class _Shape:
    """Which columns of rows with the same columns hold a field.

    Attributes:
        names: the columns of each field, the one that is looked at first before others.
        numbered: those of them that belong to each field by their numbers, in the order of these.
        spare: columns that may go unused and have not been seen with anything in them.
    """

    names: Mapping[str, tuple[str | int, ...]]
    numbered: Mapping[str, tuple[str | int, ...]]
    spare: list[str | int]


def _numbered_columns(field: str, columns: tuple[str | int, ...]) -> tuple[str, ...]:
    """Return the columns that hold a field by their numbers, in the order of these."""
    known = {folded(str(name)) for name in NUMBERED.get(field, ())}
    found = {column: numbered(column) for column in columns if isinstance(column, str)}
    mine = {column: name for column, name in found.items() if name and name[0] in known}
    return tuple(sorted(mine, key=lambda column: mine[column][1]))


class Fields:
    """The names under which a row's fields are looked for, and which columns of a file no field was taken from.

    Args:
        given: the user's names (columns by number, from 1, where a file has no header), one or several per field.
        known: the fields that there are, with the names tried where the user gives none, in any spelling.

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
        self._shapes: dict[tuple[str | int, ...], _Shape] = {}
        self._row: Row | None = None
        self._shape = _Shape({}, {}, [])
        self._used: set[str | int] = set()
        self._filled: dict[str | int, None] = {}  # columns that may go unused and held something

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

    # Which columns hold a field

    def _resolve(self, columns: tuple[str | int, ...]) -> _Shape:
        by_name: dict[str, list[str | int]] = {}
        for column in columns:
            if isinstance(column, str):
                by_name.setdefault(folded(column), []).append(column)
        names: dict[str, tuple[str | int, ...]] = {}
        counted: dict[str, tuple[str | int, ...]] = {}
        for field, listed in self.names.items():
            if field in self.given:
                names[field] = tuple(name for name in dict.fromkeys(listed) if name in columns)
                continue
            found: dict[str | int, None] = {}
            for name in map(str, listed):
                exact = [name] if name in columns else []
                found.update(dict.fromkeys([*exact, *by_name.get(folded(name), ())]))
            counted[field] = _numbered_columns(field, columns)
            names[field] = (*found, *counted[field])
        first = {n for field, found in names.items() for n in (found if field == "negative" else found[:1])}
        return _Shape(names, counted, [c for c in columns if c not in first])

    def _of(self, row: Row) -> _Shape:
        """Return the shape of a row; rows come one after the other, and each is asked for several fields."""
        if row is self._row:
            return self._shape
        columns = tuple(row)
        shape = self._shapes.get(columns)
        if shape is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            shape = self._shapes[columns] = self._resolve(columns)
            self._used.update(name for name in columns if name not in shape.spare)
        if shape.spare:
            self._look_at_spare(row, shape)
        self._row, self._shape = row, shape
        return shape

    def _look_at_spare(self, row: Row, shape: _Shape) -> None:
        filled = [name for name in shape.spare if not is_empty(row[name])]
        if filled:
            self.leave_out(filled)
            shape.spare[:] = [name for name in shape.spare if name not in filled]

    def leave_out(self, names: Iterable[str | int]) -> None:
        """Note columns that hold something and that may go unused."""
        if len(self._filled) < _SHAPES:
            self._filled.update(dict.fromkeys(names))

    def columns_of(self, columns: Sequence[str | int]) -> Mapping[str, tuple[str | int, ...]]:
        """Return the columns that each field can come from."""
        return self._resolve(tuple(columns)).names

    def wanted(self, columns: Sequence[str], also: Collection[str] = ()) -> list[str]:
        """Return the columns of a file that a field can come from, and note the others as left out.

        Args:
            columns: of the file.
            also: columns that are read beside them.
        """
        mine = {name for names in self.columns_of(columns).values() for name in names} | set(also)
        self.leave_out(name for name in columns if name not in mine)
        return [name for name in columns if name in mine]

    def unused(self) -> list[str]:
        """Return the columns, of those seen so far, that held something and that no field was taken from."""
        return [str(name) for name in self._filled if name not in self._used]

    # What is in them

    def find(self, row: Row, field: str) -> tuple[str | int, Any]:
        """Return the name under which a field is there, and what it holds; None where it is missing."""
        there = (self._shape if row is self._row else self._of(row)).names[field]
        if there:
            value = row[there[0]]
            if value is not None:
                return there[0], value
        for name in there[1:]:
            value = row[name]
            if value is not None:
                self._used.add(name)
                return name, value
        names = self.names[field]
        return names[0] if names else field, None

    def several(self, row: Row, field: str) -> Iterator[tuple[str | int, Any]]:
        """Yield the names of all columns that a field may come from, and what they hold; not those with nothing."""
        for name in self._of(row).names[field]:
            yield from self._filled_cell(row, name)

    def numbered_of(self, row: Row, field: str) -> Iterator[tuple[str | int, Any]]:
        """Yield the names of the numbered columns of a field, and what they hold; not those with nothing."""
        for name in self._of(row).numbered.get(field, ()):
            yield from self._filled_cell(row, name)

    def _filled_cell(self, row: Row, name: str | int) -> Iterator[tuple[str | int, Any]]:
        value = row[name]
        if value is not None and value != "":
            self._used.add(name)
            yield name, value

    def required(self, row: Row, field: str) -> tuple[str | int, Any]:
        """Return the name under which a field is there, and what it holds, which may be a null.

        Raises:
            BrokenError: it is missing; it names the fields that are there.
        """
        name, value = self.find(row, field)
        if value is None:
            there = self._of(row).names[field]
            if not there:
                listed = ", ".join(str(n) for n in row)[:100] or "none"
                raise BrokenError("missing_field", f"field {name!r} is missing, there is {listed}; see import.fields")
            return there[0], None
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

    def metadata(self, row: Row) -> tuple[str, int]:
        """Return a passage's metadata, which is an object or the text of one, and how many values were left out.

        Raises:
            BrokenError: it is something else, or JSON cannot hold it.
        """
        name, value = self.find(row, "metadata")
        return checked_metadata(value, name)


def passage_of(row: Row, file: str, line: int, fields: Fields) -> PassageRow:
    """Return the passage that a row holds; one with a title needs no text.

    Raises:
        BrokenError: it holds none.
    """
    name, text = fields.required(row, "text")
    title = fields.text(row, "title", default="")
    has_title = bool(title) and not title.isspace()
    text = checked_text("" if has_title and text is None else text, name, may_be_empty=has_title)
    return PassageRow(fields.id(row), title, text, file, line, *fields.metadata(row))


def query_of(row: Row, file: str, line: int, fields: Fields) -> QueryRow:
    """Return the query that a row holds.

    Raises:
        BrokenError: it holds none.
    """
    return QueryRow(fields.id(row), fields.text(row, "text"), file, line)


def unused_columns(files: Mapping[str, Fields]) -> dict[str, list[str]]:
    """Return the columns of each file that no field was taken from, of files that have some."""
    return {file: fields.unused() for file, fields in files.items() if fields.unused()}
