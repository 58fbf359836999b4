"""Reads the BEIR layout: corpus.jsonl, queries.jsonl, qrels/<split>.tsv; as a folder or zipped."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from causalneg.errors import UserError
from causalneg.sources.fields import CORPUS_NAMES, Fields, passage_of, query_of
from causalneg.sources.items import PASSAGES, QUERIES, Dataset, SourceRow
from causalneg.sources.opening import Folder, digest_of
from causalneg.sources.qrels import read_qrels
from causalneg.sources.tables import as_rows, json_lines

_CORPUS, _QUERIES, _QRELS = "corpus.jsonl", "queries.jsonl", "qrels"


def _rows(folder: Folder, splits: list[str], fields: Fields) -> Iterator[SourceRow]:
    for name, rows, make in (
        (_CORPUS, PASSAGES, partial(passage_of, fields=fields)),
        (_QUERIES, QUERIES, partial(query_of, fields=fields)),
    ):
        with folder.opened(name) as file:
            yield from as_rows(json_lines(file), rows, folder.where(name), make)
    for name in splits:
        with folder.opened(name) as file:
            yield from read_qrels(file, Path(name).stem, folder.where(name))


def read_beir(path: Path, names: Mapping[str, Any]) -> Dataset:
    """Read a data set in the BEIR layout; passages come first, then queries, then judgements.

    Args:
        path: folder or zip.
        names: the user's names of fields, the same in both JSONL files.

    Raises:
        UserError: a file is missing or the zip is damaged.
    """
    folder, fields = Folder(path, _CORPUS), Fields(names, CORPUS_NAMES)
    splits = folder.files(_QRELS, ".tsv")
    sizes = {name: folder.size(name) for name in (_CORPUS, _QUERIES, *splits)}
    for name in (_CORPUS, _QUERIES):
        if not folder.has(name):
            raise UserError(f"{folder.where(name)} does not exist; a BEIR folder needs it.")
    if not splits:
        raise UserError(f"{folder.where(_QRELS)} holds no .tsv file; there must be one per split, as train.tsv.")
    files = [path / name for name in sizes] if path.is_dir() else [path]
    return Dataset(
        digest=partial(digest_of, files),
        rows=partial(_rows, folder, splits, fields),
        total=sum(sizes.values()),
        unit="MB",
        done=lambda: folder.tally.bytes,
    )
