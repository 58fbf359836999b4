"""Reads relevance judgements: by the names in the first line, or else four columns as in TREC, or three as in BEIR."""

import csv
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from causalneg.errors import UserError
from causalneg.sources.fields import Fields
from causalneg.sources.items import JUDGEMENTS, BrokenError, BrokenRow, JudgementRow, SourceRow
from causalneg.sources.opening import numbered_lines
from causalneg.sources.tables import Fault, decoded
from causalneg.sources.values import excerpt, score_of

# Files of judgements in a folder, the first before others where a split has several.
SUFFIXES = (".tsv", ".txt", ".trec", ".qrels", ".csv")


class _Layout(NamedTuple):
    """Where in a line the query, the passage and the score stand, and how many columns there are."""

    query: int
    passage: int
    score: int
    columns: int


_BEIR, _TREC = _Layout(0, 1, 2, 3), _Layout(0, 2, 3, 4)  # TREC's second column is the iteration, which nobody uses


def _by_spaces(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t") if "\t" in line else line.split()


def _by_commas(line: str) -> list[str]:
    try:
        return next(csv.reader([line.strip()]), [])
    except csv.Error as error:
        raise BrokenError("invalid_row", f"the line cannot be taken apart ({error})") from error


def _cutter(first: str) -> Callable[[str], list[str]]:
    """Return what takes the lines of a file apart, by the first of them."""
    return _by_commas if "\t" not in first and len(first.split()) < 3 <= len(_by_commas(first)) else _by_spaces


def _is_header(cells: Sequence[str], fields: Fields) -> bool:
    """Whether a first line names the columns of queries and passages, and is no judgement itself."""
    names = [cell.strip() for cell in cells]
    found = fields.columns_of(names)
    return bool(found["query"] and found["passage"]) and not any(map(_is_score, names))


def _is_score(cell: str) -> bool:
    try:
        score_of(cell)
    except BrokenError:
        return False
    return True


def _layout_of(header: Sequence[str], fields: Fields, where: str) -> _Layout | None:
    """Return the layout that a first line names; None where it is BEIR's, whose lines may yet be those of TREC.

    Raises:
        UserError: it names columns of queries and passages, and none of scores.
    """
    names = [name.strip() for name in header]
    found = fields.columns_of(names)
    chosen = [found["query"][0], found["passage"][0]]
    others = [name for name in names if name not in (*chosen, *found["iteration"])]
    if not found["score"] and len(others) != 1:
        raise UserError(
            f"{where}: none of the columns {', '.join(names)[:100]} is known to hold the score; call it `score`."
        )
    chosen.append((found["score"] or others)[0])
    fields.leave_out(name for name in others if name and name not in chosen)
    layout = _Layout(*(names.index(str(name)) for name in chosen), len(names))
    return None if layout == _BEIR else layout


def _judgement(cells: list[str], layout: _Layout | None, split: str, where: str, number: int) -> JudgementRow:
    columns = layout.columns if layout else 3
    while len(cells) > columns and not cells[-1]:  # a tab at the end of the line
        cells.pop()
    if layout is None:
        layout = _TREC if len(cells) == 4 else _BEIR
        if len(cells) != layout.columns:
            raise BrokenError(
                "invalid_row", "three columns are needed (query-id, corpus-id, whole-number score), or the four of TREC"
            )
    elif not max(layout[:3]) < len(cells) <= columns:
        raise BrokenError("invalid_row", f"{len(cells)} columns where the first line names {columns}")
    score = score_of(cells[layout.score])
    return JudgementRow(cells[layout.query], cells[layout.passage], score, split, where, number)


def read_qrels(file: BinaryIO, split: str, where: str, fields: Fields) -> Iterator[SourceRow]:
    """Stream the judgements of a split; empty lines are left out.

    Args:
        file: of the judgements.
        split: of all of them.
        where: how the file is named to the user.
        fields: with the names of `QREL_NAMES`, which tell what the columns hold where the first line names them.

    Raises:
        UserError: the first line names no column of scores.
    """
    cut: Callable[[str], list[str]] | None = None
    layout: _Layout | None = None
    for number, raw in numbered_lines(file):
        line = decoded(raw)
        if isinstance(line, Fault):
            yield BrokenRow(JUDGEMENTS, *line, where, number)
            continue
        if not line.strip():
            continue
        try:
            if cut is None:
                cut = _cutter(line)
                if _is_header(cut(line), fields):
                    layout = _layout_of(cut(line), fields, where)
                    continue
            yield _judgement(cut(line), layout, split, where, number)
        except BrokenError as error:
            yield BrokenRow(JUDGEMENTS, error.kind, str(error), excerpt(line), where, number)
