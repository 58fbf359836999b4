"""Reads JSONL of query-positive pairs: the positives are the corpus."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from causalneg.errors import UserError
from causalneg.records import Passage, Qrel, Query, content_id
from causalneg.sources.data import Data, Judged
from causalneg.sources.jsonl import numbered_lines, parse_object, text_field


@dataclass(frozen=True)
class _Pair:
    query: Query
    positive: Passage
    split: str
    where: str


def _pairs(path: Path) -> Iterator[_Pair]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        for number, line in numbered_lines(file, str(path)):
            row = parse_object(line, str(path), number)
            query = text_field(row, "query", str(path), number)
            text = text_field(row, "positive", str(path), number)
            title = text_field(row, "title", str(path), number, default="")
            yield _Pair(
                Query(id=content_id("query", query), text=query),
                Passage(id=content_id("passage", title, text), title=title, text=text),
                text_field(row, "split", str(path), number, default=""),
                f"{path}, line {number}",
            )


def read_pairs(path: Path, test_share: float, seed: int) -> Data:
    """Read JSONL with `query`, `positive` and, if wanted, `title` and `split` in each row.

    Ids are hashes of the texts, so a pair that comes twice is one pair. Where no row names a split, a share
    of the queries, drawn by seed, becomes the test split.

    Raises:
        UserError: the file or a line is broken; it names the file and line.
    """
    pairs = list(_pairs(path))
    queries = {p.query.id: p.query for p in pairs}
    passages = {p.positive.id: p.positive for p in pairs}
    held_out: set[str] = set()
    if not any(p.split for p in pairs):
        held_out = set(random.Random(seed).sample(sorted(queries), round(len(queries) * test_share)))  # noqa: S311
    judged = {
        (p.query.id, p.positive.id): Judged(
            Qrel(
                query_id=p.query.id,
                passage_id=p.positive.id,
                split=p.split or ("test" if p.query.id in held_out else "train"),
            ),
            p.where,
        )
        for p in pairs
    }
    return Data(passages.values(), queries.values(), judged.values())
