"""Reads relevance judgements: by the names in the first line, or else four columns as in TREC, or three as in BEIR."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from causalneg.errors import UserError
from causalneg.sources.fields import Fields
from causalneg.sources.items import JUDGEMENTS, BrokenError, BrokenRow, JudgementRow, SourceRow
from causalneg.sources.names import QREL_NAMES
from causalneg.sources.opening import numbered_lines
from causalneg.sources.tables import Fault, decoded
from causalneg.sources.values import excerpt, score_of

# Files of judgements in a folder, the first before others where a split has several.
SUFFIXES = (".tsv", ".txt", ".trec", ".qrels", ".csv")


class Judged(NamedTuple):
    """What a line says; `is_trec` where it has the four columns of TREC."""

    query: str
    passage: str
    score: int
    is_trec: bool


class _Layout(NamedTuple):
    """Where in a line the query, the passage and the score stand, and how many columns there are."""

    query: int
    passage: int
    score: int
    columns: int


_BEIR, _TREC = _Layout(0, 1, 2, 3), _Layout(0, 2, 3, 4)  # TREC's second column is the iteration, which nobody uses
_FIELD = re.compile(r"[^ \t\n\r\f\v]+")  # by ASCII's white space alone: ids may hold other kinds


def _by_spaces(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t") if "\t" in line else _FIELD.findall(line)


def _by_commas(line: str) -> list[str]:
    try:
        return next(csv.reader([line.strip()]), [])
    except csv.Error as error:
        raise BrokenError("invalid_row", f"the line cannot be taken apart ({error})") from error


def _is_score(cell: str) -> bool:
    try:
        score_of(cell)
    except BrokenError:
        return False
    return True


class QrelLines:
    """Takes the lines of a file of judgements apart, one after the other.

    Args:
        where: how the file is named to the user.
        fields: notes the columns that are not used.
    """

    def __init__(self, where: str, fields: Fields | None = None) -> None:
        self._where, self._fields = where, fields or Fields({}, QREL_NAMES)
        self._cut: Callable[[str], list[str]] | None = None
        self._layout: _Layout | None = None  # none is BEIR's, where lines may also be those of TREC

    def take(self, line: str) -> Judged | None:
        """Return what a line says; None for a first line that names the columns.

        Raises:
            BrokenError: it is no judgement.
            UserError: the first line names no column of scores.
        """
        if self._cut is None:
            self._cut = self._cutter(line)
            names = [name.strip() for name in self._cut(line)]
            if self._is_header(names):
                self._layout = self._layout_of(names)
                return None
        return self._judged(self._cut(line))

    def _cutter(self, first: str) -> Callable[[str], list[str]]:
        """Return what takes all lines apart, by the first of them."""
        if "\t" in first or first.count(",") < 2:
            return _by_spaces
        names = [name.strip() for name in _by_commas(first)]
        return _by_commas if len(first.split()) < 3 or self._is_header(names) else _by_spaces

    def _is_header(self, names: Sequence[str]) -> bool:
        """Whether a first line names the columns of queries and passages, and is no judgement itself."""
        found = self._fields.columns_of(names)
        return bool(found["query"] and found["passage"]) and not any(map(_is_score, names))

    def _layout_of(self, names: Sequence[str]) -> _Layout | None:
        found = self._fields.columns_of(names)
        chosen = [found["query"][0], found["passage"][0]]
        others = [name for name in names if name not in (*chosen, *found["iteration"])]
        if not found["score"] and len(others) != 1:
            listed = ", ".join(names)[:100]
            raise UserError(f"{self._where}: none of the columns {listed} is known to hold the score; call it `score`.")
        chosen.append((found["score"] or others)[0])
        self._fields.leave_out(name for name in others if name and name not in chosen)
        query, passage, score = (names.index(str(name)) for name in chosen)
        layout = _Layout(query, passage, score, len(names))
        return None if layout == _BEIR else layout

    def _judged(self, cells: list[str]) -> Judged:
        layout = self._layout
        columns = layout.columns if layout else _BEIR.columns
        while len(cells) > columns and not cells[-1]:  # a tab at the end of the line
            cells.pop()
        if layout is None:
            layout = _TREC if len(cells) == _TREC.columns else _BEIR
            if len(cells) != layout.columns:
                raise BrokenError(
                    "invalid_row",
                    "three columns are needed (query-id, corpus-id, whole-number score), or the four of TREC, "
                    f"but here are {len(cells)}",
                )
        elif not max(layout[:3]) < len(cells) <= columns:
            raise BrokenError("invalid_row", f"{len(cells)} columns where the first line names {columns}")
        score = score_of(cells[layout.score])
        return Judged(cells[layout.query], cells[layout.passage], score, layout is _TREC)


def read_qrels(file: BinaryIO, split: str, where: str, fields: Fields) -> Iterator[SourceRow]:
    """Stream the judgements of a split; empty lines are left out.

    Args:
        file: of the judgements.
        split: of all of them.
        where: how the file is named to the user.
        fields: with the names of `QREL_NAMES`.

    Raises:
        UserError: the first line names no column of scores.
    """
    lines = QrelLines(where, fields)
    for number, raw in numbered_lines(file):
        line = decoded(raw)
        if isinstance(line, Fault):
            yield BrokenRow(JUDGEMENTS, *line, where, number)
        elif line and not line.isspace():
            try:
                found = lines.take(line)
            except BrokenError as error:
                yield BrokenRow(JUDGEMENTS, error.kind, str(error), excerpt(line), where, number)
                continue
            if found:
                yield JudgementRow(found.query, found.passage, found.score, split, where, number)
