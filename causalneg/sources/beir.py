"""Reads the BEIR layout: corpus.jsonl, queries.jsonl, qrels/<split>.tsv; as a folder or zipped."""

import re
from collections.abc import Iterator
from pathlib import Path

from causalneg.errors import UserError
from causalneg.records import Passage, Qrel, Query
from causalneg.sources.data import Data, Judged
from causalneg.sources.jsonl import Folder, parse_object, text_field, unique_id


def _passages(folder: Folder) -> Iterator[Passage]:
    name = "corpus.jsonl"
    where = folder.where(name)
    seen: set[str] = set()
    for number, line in folder.lines(name):
        row = parse_object(line, where, number)
        yield Passage(
            id=unique_id(row, seen, where, number),
            title=text_field(row, "title", where, number, default=""),
            text=text_field(row, "text", where, number),
        )


def _queries(folder: Folder) -> Iterator[Query]:
    name = "queries.jsonl"
    where = folder.where(name)
    seen: set[str] = set()
    for number, line in folder.lines(name):
        row = parse_object(line, where, number)
        yield Query(id=unique_id(row, seen, where, number), text=text_field(row, "text", where, number))


def _judged(folder: Folder) -> Iterator[Judged]:
    names = folder.files("qrels", ".tsv")
    if not names:
        raise UserError(f"{folder.where('qrels')} holds no .tsv file; there must be one per split, as train.tsv.")
    for name in names:
        split = Path(name).stem
        for number, line in folder.lines(name):
            where = f"{folder.where(name)}, line {number}"
            columns = line.split("\t")
            if number == 1 and columns[0] in ("query-id", "query_id"):
                continue
            if len(columns) != 3 or not re.fullmatch(r"\s*-?[0-9]+\s*", columns[2]):
                raise UserError(f"{where}: three columns are needed (query-id, corpus-id, whole-number score).")
            query, passage, score = columns
            yield Judged(Qrel(query_id=query, passage_id=passage, score=int(score), split=split), where)


def read_beir(path: Path) -> Data:
    """Read a data set in the BEIR layout.

    Raises:
        UserError: a file is missing or a line is broken; it names the file and line.
    """
    folder = Folder(path)
    return Data(_passages(folder), _queries(folder), _judged(folder))
