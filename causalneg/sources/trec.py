"""Reads a corpus file with TREC topics and qrels, a file of each per split."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from causalneg.errors import UserError
from causalneg.sources.fields import Fields, passage_of, unused_columns
from causalneg.sources.items import PASSAGES, Dataset, SourceRow
from causalneg.sources.names import CORPUS_NAMES, QREL_NAMES
from causalneg.sources.opening import Tally, digest_of, opened
from causalneg.sources.qrels import read_qrels
from causalneg.sources.tables import as_rows, read_table
from causalneg.sources.topics import read_topics, topic_fields


def _rows(
    corpus: Path, topics: list[Path], qrels: Mapping[str, Path], tally: Tally, fields: Mapping[str, Fields]
) -> Iterator[SourceRow]:
    of_corpus = fields[str(corpus)]
    yield from as_rows(
        read_table(corpus, tally, of_corpus), PASSAGES, str(corpus), partial(passage_of, fields=of_corpus)
    )
    for path in topics:
        yield from read_topics(path, tally, fields[str(path)])
    for split, path in qrels.items():
        with opened(path, tally) as file:
            yield from read_qrels(file, split, str(path), fields[str(path)])


def read_trec(corpus: Path, names: Mapping[str, Any], topics: Mapping[str, str], qrels: Mapping[str, str]) -> Dataset:
    """Read a corpus file with id, title and text, and the queries and judgements of each split.

    Args:
        corpus: one of `tables.SUFFIXES`; where it has no header, `names` gives the columns by number.
        names: the user's names of the corpus's fields.
        topics: file of each split's queries; several splits may share one.
        qrels: file of each split's judgements.

    Raises:
        UserError: a file or the judgements of a split are missing.
    """
    if not topics or not qrels:
        raise UserError("import.topics and import.qrels go together: name a file of each, as `{test: FILE}`.")
    if alone := sorted(set(topics) - set(qrels)):
        raise UserError(f"import.qrels names no file for the split {alone[0]!r}, which import.topics has.")
    queries = list(dict.fromkeys(Path(p).expanduser() for p in topics.values()))
    judged = {split: Path(p).expanduser() for split, p in qrels.items()}
    files = [corpus, *queries, *judged.values()]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path} does not exist or is no file; see import.source, import.topics, import.qrels.")
    tally, fields = Tally(), {str(corpus): Fields(names, CORPUS_NAMES)}
    fields |= {str(path): topic_fields(path) for path in queries}
    fields |= {str(path): Fields({}, QREL_NAMES) for path in judged.values()}
    return Dataset(
        digest=lambda: digest_of(files) + " " + " ".join(judged),
        rows=partial(_rows, corpus, queries, judged, tally, fields),
        total=sum(p.stat().st_size for p in files),
        unit="MB",
        done=lambda: tally.bytes,
        unused=lambda: unused_columns(fields),
    )
