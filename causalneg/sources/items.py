"""What a reader yields: the rows of a data set, each with the place it was read from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

EXCERPT = 200  # characters of a rejected row that are written aside

# Kinds of rows, as they are counted. A pair gives a query, passages and judgements.
PASSAGES, QUERIES, JUDGEMENTS, PAIRS = "passages", "queries", "judgements", "pairs"


class PassageRow(NamedTuple):
    """A passage; `line` counts from 1, as do the rows of files that have no lines.

    `left_out` counts the values of its metadata that JSON cannot hold.
    """

    id: str
    title: str
    text: str
    file: str
    line: int
    metadata: str = ""
    left_out: int = 0


class QueryRow(NamedTuple):
    """A query."""

    id: str
    text: str
    file: str
    line: int


class JudgementRow(NamedTuple):
    """A relevance judgement; no split means that the import chooses one by the query."""

    query_id: str
    passage_id: str
    score: int
    split: str | None
    file: str
    line: int


class PairRow(NamedTuple):
    """A query with its positives and negatives, each `(title, text)`; ids follow from the texts.

    `left_out` counts the members of its lists that were empty.
    """

    query: str
    positives: tuple[tuple[str, str], ...]
    negatives: tuple[tuple[str, str], ...]
    split: str | None
    file: str
    line: int
    left_out: int = 0


class BrokenRow(NamedTuple):
    """A row that cannot be read: what it should have been, the kind of its fault, and the reason as half a sentence."""

    rows: str
    kind: str
    reason: str
    excerpt: str
    file: str
    line: int


SourceRow = PassageRow | QueryRow | JudgementRow | PairRow | BrokenRow


class BrokenError(Exception):
    """A row has a fault; `kind` names it for the counts, the message says it to the user."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Dataset:
    """A data set as the import sees it.

    Attributes:
        digest: changes when the data changes.
        rows: one stream of all rows, the same in every run.
        total: how much there is to read, in `unit`; 0 where it is unknown.
        done: how much of it was read so far.
        unread: files that lie there and are not read.
        unused: by file, the columns that no field was taken from, of the rows read so far.
    """

    digest: Callable[[], str]
    rows: Callable[[], Iterator[SourceRow]]
    total: int = 0
    unit: str = "rows"
    done: Callable[[], int] | None = None
    unread: Sequence[str] = ()
    unused: Callable[[], dict[str, list[str]]] = dict
