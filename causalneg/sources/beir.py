"""Reads the BEIR layout: corpus.jsonl, queries.jsonl, qrels/<split>.tsv; as a folder or zipped."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from causalneg.errors import UserError
from causalneg.sources.fields import Fields, passage_of, query_of, unused_columns
from causalneg.sources.folder import Folder, split_of, variants
from causalneg.sources.hints import listed, what_is_there
from causalneg.sources.items import PASSAGES, QUERIES, Dataset, SourceRow
from causalneg.sources.names import CORPUS_NAMES, QREL_NAMES, TOPIC_NAMES
from causalneg.sources.opening import digest_of, plain_suffix
from causalneg.sources.qrels import SUFFIXES as QRELS_SUFFIXES
from causalneg.sources.qrels import read_qrels
from causalneg.sources.tables import JSON_LINES, as_rows, json_lines

_QRELS = "qrels"
_CORPUS, _QUERIES = (variants(stem + suffix for suffix in JSON_LINES) for stem in ("corpus", "queries"))


@dataclass(frozen=True)
class _Files:
    """The files of a data set, as its folder names them, and the judgements of each split."""

    corpus: str
    queries: str
    qrels: dict[str, str]

    def __iter__(self) -> Iterator[str]:
        return iter((self.corpus, self.queries, *self.qrels.values()))


def _find(folder: Folder) -> _Files:
    """Return the files that are read; of several with the judgements of a split, the first in the order of suffixes.

    Raises:
        UserError: one is missing; it says what there is.
    """
    files = folder.all_files()
    corpus, queries = folder.find(_CORPUS), folder.find(_QUERIES)
    if corpus is None:
        there = what_is_there(folder.path, files if folder.is_zip else None)
        raise UserError(f"{folder.where(_CORPUS[0])} does not exist; a BEIR folder needs it. {there}")
    if queries is None:
        raise UserError(
            f"{folder.where(_QUERIES[0])} does not exist; a BEIR folder needs it. There is {listed(files)}."
        )
    judged = [name for name in folder.files(_QRELS) if plain_suffix(name) in QRELS_SUFFIXES]
    qrels: dict[str, str] = {}
    for name in sorted(judged, key=lambda n: (QRELS_SUFFIXES.index(plain_suffix(n)), n)):
        qrels.setdefault(split_of(name), name)
    if not qrels:
        where = folder.where(_QRELS)
        raise UserError(
            f"{where} holds no .tsv file; there must be one per split, as train.tsv. There is {listed(files)}."
        )
    return _Files(corpus, queries, dict(sorted(qrels.items(), key=lambda item: item[1])))


def _rows(folder: Folder, files: _Files, fields: Mapping[str, Fields]) -> Iterator[SourceRow]:
    for name, rows, make in ((files.corpus, PASSAGES, passage_of), (files.queries, QUERIES, query_of)):
        where = folder.where(name)
        with folder.opened(name) as file:
            yield from as_rows(json_lines(file), rows, where, partial(make, fields=fields[where]))
    for split, name in files.qrels.items():
        where = folder.where(name)
        with folder.opened(name) as file:
            yield from read_qrels(file, split, where, fields[where])


def read_beir(path: Path, names: Mapping[str, Any]) -> Dataset:
    """Read a data set in the BEIR layout; passages come first, then queries, then judgements.

    Args:
        path: folder or zip.
        names: the user's names of fields, the same in both JSONL files.

    Raises:
        UserError: a file is missing or the zip is damaged.
    """
    folder = Folder(path, _CORPUS)
    corpus = Fields(names, CORPUS_NAMES)
    files = _find(folder)
    queries = Fields({field: given for field, given in names.items() if field in TOPIC_NAMES}, TOPIC_NAMES)
    fields = {folder.where(files.corpus): corpus, folder.where(files.queries): queries}
    fields |= {folder.where(name): Fields({}, QREL_NAMES) for name in files.qrels.values()}
    return Dataset(
        digest=partial(digest_of, [path / name for name in files] if path.is_dir() else [path]),
        rows=partial(_rows, folder, files, fields),
        total=sum(folder.size(name) for name in files),
        unit="MB",
        done=lambda: folder.tally.bytes,
        unread=folder.unread(files),
        unused=lambda: unused_columns(fields),
    )
