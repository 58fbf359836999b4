"""Reads the queries of one split from a file of TREC topics, or from any file of rows with id and text."""

from collections import namedtuple
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from causalneg.errors import UserError
from causalneg.sources.fields import Fields, query_of
from causalneg.sources.items import QUERIES, QueryRow, SourceRow
from causalneg.sources.names import TOPIC_NAMES
from causalneg.sources.opening import Tally, numbered_lines, opened, plain_suffix
from causalneg.sources.tables import SUFFIXES, as_rows, read_table

# How ir_datasets recognises the parts of a <top>; without a part's own entry its text would count to the one before.
_TOP = {
    "<num> *(Number:)?": "query_id",
    "<title> *(Topic:)?": "title",
    "<desc> *(Description:)?": "description",
    "<narr> *(Narrative:)?": "narrative",
}
_XML = {"query": "text", "title": "text", "number": "query_id", "num": "query_id"}


class _Download:
    """A file as ir_datasets' readers open it."""

    def __init__(self, path: Path, tally: Tally) -> None:
        self._path, self._tally = path, tally

    def stream(self) -> AbstractContextManager[BinaryIO]:
        """Open the file, unpacked where it is compressed."""
        return opened(self._path, self._tally)


def _topics(file: _Download, content: str) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of the topics in a file with <top> elements, or of an XML file with <topic> elements."""
    from ir_datasets.formats import TrecQueries, TrecXmlQueries
    from ir_datasets.formats.base import GenericQuery

    if "<top>" in content:
        parts = {pattern: name for pattern, name in _TOP.items() if pattern.split(" ")[0] in content}
        topic = namedtuple("topic", list(parts.values()))  # type: ignore[misc] # made of what is there
        for found in TrecQueries(file, topic, parts, remove_tags=("</num>", "</title>")).queries_iter():
            yield found.query_id, found.title
        return
    for found in TrecXmlQueries(file, GenericQuery, _XML).queries_iter():
        yield found.query_id, found.text


def _marked_up(path: Path, tally: Tally) -> Iterator[SourceRow]:
    try:
        with opened(path, Tally()) as file:
            content = file.read().decode()
        found = list(_topics(_Download(path, tally), content))
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, SyntaxError, OSError) as error:
        raise UserError(f"{path} holds no whole TREC topics, each with a number and a title; mend the file.") from error
    for number, (name, text) in enumerate(found, 1):
        yield QueryRow(name.strip(), " ".join((text or "").split()), str(path), number)


def _is_marked_up(path: Path) -> bool:
    with opened(path, Tally()) as file:
        return file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def topic_fields(path: Path) -> Fields:
    """Return the fields of a file of topics: a TSV has id and text, unless its first line names its columns."""
    by_name = Fields({}, TOPIC_NAMES)
    if plain_suffix(path) != ".tsv":
        return by_name
    with opened(path, Tally()) as file:
        _, raw = next(numbered_lines(file), (0, b""))
    cells = [cell.strip() for cell in (raw or b"").decode("utf-8", "replace").split("\t")]
    found = by_name.columns_of(cells)
    if found["id"] and found["text"]:
        return by_name
    if len(cells) > 1 and cells[0] in found["id"]:
        return Fields({"id": cells[0], "text": cells[1]}, TOPIC_NAMES)
    return Fields({"id": 1, "text": 2}, TOPIC_NAMES)


def read_topics(path: Path, tally: Tally, fields: Fields) -> Iterator[SourceRow]:
    """Stream the queries of a file: TREC topics, or `SUFFIXES`.

    Args:
        path: the file.
        tally: counts the bytes read.
        fields: as `topic_fields` makes them.

    Raises:
        UserError: the file is missing or damaged.
    """
    if _is_marked_up(path):
        yield from _marked_up(path, tally)
        return
    if plain_suffix(path) not in SUFFIXES:
        raise UserError(f"{path} holds no TREC topics and is none of {', '.join(SUFFIXES)}; convert or rename it.")
    yield from as_rows(read_table(path, tally, fields), QUERIES, str(path), partial(query_of, fields=fields))
