"""What every reader returns."""

from collections.abc import Iterable
from dataclasses import dataclass

from causalneg.records import Passage, Qrel, Query


@dataclass(frozen=True)
class Judged:
    """A relevance judgement with the place it was read from, for error messages."""

    qrel: Qrel
    where: str


@dataclass(frozen=True)
class Data:
    """A data set as streams, each read once, in this order: passages, queries, judgements. Ids are unique."""

    passages: Iterable[Passage]
    queries: Iterable[Query]
    judged: Iterable[Judged]
