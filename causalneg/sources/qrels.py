"""Reads relevance judgements: four columns as in TREC, or three with a header as in BEIR."""

from collections.abc import Iterator
from typing import BinaryIO

from causalneg.sources.fields import excerpt, score_of
from causalneg.sources.items import JUDGEMENTS, BrokenError, BrokenRow, JudgementRow, SourceRow
from causalneg.sources.opening import numbered_lines
from causalneg.sources.tables import Fault, decoded


def _judgement(line: str, split: str, where: str, number: int) -> JudgementRow:
    columns = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
    if len(columns) == 4:
        del columns[1]  # the iteration, which nobody uses
    if len(columns) != 3:
        raise BrokenError(
            "invalid_row", "three columns are needed (query-id, corpus-id, whole-number score), or the four of TREC"
        )
    query, passage, score = columns
    return JudgementRow(query, passage, score_of(score), split, where, number)


def read_qrels(file: BinaryIO, split: str, where: str) -> Iterator[SourceRow]:
    """Stream the judgements of a split; a first line that names the columns and empty lines are left out."""
    for number, raw in numbered_lines(file):
        line = decoded(raw)
        if isinstance(line, Fault):
            yield BrokenRow(JUDGEMENTS, *line, where, number)
            continue
        if not line.strip() or (number == 1 and line.split()[0] in ("query-id", "query_id")):
            continue
        try:
            yield _judgement(line, split, where, number)
        except BrokenError as error:
            yield BrokenRow(JUDGEMENTS, error.kind, str(error), excerpt(line), where, number)
