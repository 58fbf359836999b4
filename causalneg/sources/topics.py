"""Reads the queries of one split from a file of TREC topics, or from any file of rows with id and text."""

from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from causalneg.errors import UserError
from causalneg.sources.fields import TOPIC_NAMES, Fields, query_of
from causalneg.sources.items import QUERIES, QueryRow, SourceRow
from causalneg.sources.opening import Tally, opened, plain_suffix
from causalneg.sources.tables import SUFFIXES, as_rows, read_table

# How ir_datasets recognises the parts of a <top>; without a part's own entry its text would count to the one before.
_TOP = {
    "<num> *(Number:)?": "query_id",
    "<title> *(Topic:)?": "title",
    "<desc> *(Description:)?": "description",
    "<narr> *(Narrative:)?": "narrative",
}
_XML = {"query": "text", "title": "text", "number": "query_id", "num": "query_id"}


def _topics(path: Path, content: str) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of the topics in a file with <top> elements, or of an XML file with <topic> elements."""
    from ir_datasets.formats import TrecQueries, TrecXmlQueries
    from ir_datasets.formats.base import GenericQuery
    from ir_datasets.util import LocalDownload

    file = LocalDownload(path, mkdir=False)
    if "<top>" in content:
        parts = {pattern: name for pattern, name in _TOP.items() if pattern.split(" ")[0] in content}
        topic = namedtuple("topic", list(parts.values()))  # type: ignore[misc] # made of what is there
        for found in TrecQueries(file, topic, parts, remove_tags=("</num>", "</title>")).queries_iter():
            yield found.query_id, found.title
        return
    for found in TrecXmlQueries(file, GenericQuery, _XML).queries_iter():
        yield found.query_id, found.text


def _marked_up(path: Path) -> Iterator[SourceRow]:
    try:
        found = list(_topics(path, path.read_text(encoding="utf-8")))
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, SyntaxError, OSError) as error:
        raise UserError(f"{path} holds no whole TREC topics, each with a number and a title; mend the file.") from error
    for number, (name, text) in enumerate(found, 1):
        yield QueryRow(name.strip(), " ".join((text or "").split()), str(path), number)


def _is_marked_up(path: Path) -> bool:
    with opened(path, Tally()) as file:
        return file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def read_topics(path: Path, tally: Tally) -> Iterator[SourceRow]:
    """Stream the queries of a file: TREC topics, or `SUFFIXES`; a TSV without a known header has id and text.

    Raises:
        UserError: the file is missing or damaged.
    """
    if _is_marked_up(path):
        yield from _marked_up(path)
        return
    suffix = plain_suffix(path)
    if suffix not in SUFFIXES:
        raise UserError(f"{path} holds no TREC topics and is none of {', '.join(SUFFIXES)}; convert or rename it.")
    fields = Fields({"id": 1, "text": 2} if suffix == ".tsv" else {}, TOPIC_NAMES)
    records = read_table(path, tally, fields, lambda name: True)
    if suffix == ".tsv":
        known = TOPIC_NAMES["id"]
        records = (r for r in records if not (r[0] == 1 and isinstance(r[1], dict) and r[1].get(1) in known))
    yield from as_rows(records, QUERIES, str(path), partial(query_of, fields=fields))
