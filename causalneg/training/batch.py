"""Training rows, their order, and their padding. Ragged rows are padded by mask, never by drawing again."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from causalneg.errors import UserError
from causalneg.records import Mined, Negative, Passage, Qrel, Source, content_id


@dataclass(frozen=True)
class RowIds:
    """A training row before its texts are looked up."""

    query_id: str
    positive_id: str
    mined: tuple[str, ...]
    generated: tuple[str, ...]


class Selection(NamedTuple):
    """The rows to train on.

    Attributes:
        rows: pairs with at least one negative, in the order of the qrels.
        pairs: train pairs looked at; those that are no row have no negative.
        generated: texts of the generated negatives by id.
    """

    rows: list[RowIds]
    pairs: int
    generated: dict[str, str]

    def count(self, source: Source) -> int:
        """Return how many negatives of a source the rows hold."""
        return sum(len(row.mined if source is Source.MINED else row.generated) for row in self.rows)


class NegativeText(NamedTuple):
    """A negative with where it comes from."""

    text: str
    source: Source


@dataclass(frozen=True)
class TrainingRow:
    """A query, its positive and its own negatives."""

    query: str
    positive: str
    negatives: tuple[NegativeText, ...]


def select_rows(
    qrels: Iterable[Qrel],
    mined: Iterable[Mined],
    negatives: Iterable[Negative],
    mined_per_query: int,
    generated_per_query: int,
) -> Selection:
    """Choose the negatives of every positive of the train split: one row per pair that has any.

    Mined negatives belong to the query, generated ones to the pair. Only accepted ones count; of those the
    first are taken in the order given.
    """
    mined_ids: dict[str, list[str]] = defaultdict(list)
    for candidate in mined:
        if candidate.verdict == "accepted" and len(mined_ids[candidate.query_id]) < mined_per_query:
            mined_ids[candidate.query_id].append(candidate.passage_id)
    generated_ids: dict[tuple[str, str], list[str]] = defaultdict(list)
    texts: dict[str, str] = {}
    for negative in negatives:
        chosen = generated_ids[negative.query_id, negative.positive_id]
        if negative.verdict == "accepted" and len(chosen) < generated_per_query:
            chosen.append(negative.id)
            texts[negative.id] = negative.full_text
    rows, pairs = [], 0
    for qrel in qrels:
        if qrel.split != "train" or qrel.score <= 0:
            continue
        pairs += 1
        row = RowIds(
            qrel.query_id,
            qrel.passage_id,
            tuple(mined_ids.get(qrel.query_id, ())),
            tuple(generated_ids.get((qrel.query_id, qrel.passage_id), ())),
        )
        if row.mined or row.generated:
            rows.append(row)
    return Selection(rows, pairs, texts)


def passage_ids(selection: Selection) -> set[str]:
    """Return the ids of the corpus's passages that the rows need."""
    return {i for row in selection.rows for i in (row.positive_id, *row.mined)}


def with_texts(selection: Selection, queries: Mapping[str, str], passages: Mapping[str, Passage]) -> list[TrainingRow]:
    """Put texts in place of ids.

    Raises:
        UserError: a query or passage is not there.
    """
    if missing := sorted({r.query_id for r in selection.rows} - queries.keys()):
        raise UserError(f"The query {missing[0]!r} of the qrels is not in queries; import the data again.")
    if missing := sorted(passage_ids(selection) - passages.keys()):
        raise UserError(f"The passage {missing[0]!r} of a train row is not in corpus; import the data again.")
    return [
        TrainingRow(
            queries[row.query_id],
            passages[row.positive_id].full_text,
            (
                *(NegativeText(passages[i].full_text, Source.MINED) for i in row.mined),
                *(NegativeText(selection.generated[i], Source.GENERATED) for i in row.generated),
            ),
        )
        for row in selection.rows
    ]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Return the batches of an epoch; the last, short one counts."""
    return -(-rows // batch_size)


def row_order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return a permutation of `rows` numbers that depends on seed and epoch alone."""
    return np.random.default_rng(int(content_id("rows", seed, epoch), 16)).permutation(rows)


def worker_slice(batch: Sequence[int], rank: int, size: int) -> Sequence[int]:
    """Return a worker's part of a global batch; parts differ by at most one row and may be empty."""
    return batch[len(batch) * rank // size : len(batch) * (rank + 1) // size]


@dataclass(frozen=True)
class PaddedBatch:
    """Rows as index arrays over their distinct texts.

    Attributes:
        queries: one per row.
        passages: every distinct passage of the rows once.
        positive: int64 `[rows]`, into `passages`.
        negatives: int64 `[rows, width]`, into `passages`; what stands where `mask` is False has no meaning.
        mask: bool `[rows, width]`, True where there is a negative.
        generated: bool `[rows, width]`, True where the negative's source is `generated`.
    """

    queries: list[str]
    passages: list[str]
    positive: np.ndarray
    negatives: np.ndarray
    mask: np.ndarray
    generated: np.ndarray


def pad(rows: Sequence[TrainingRow]) -> PaddedBatch:
    """Bring ragged rows to one width by mask."""
    index: dict[str, int] = {}
    width = max([1, *(len(row.negatives) for row in rows)])
    shape = (len(rows), width)
    positive, negatives = np.zeros(len(rows), np.int64), np.zeros(shape, np.int64)
    mask, generated = np.zeros(shape, bool), np.zeros(shape, bool)
    for r, row in enumerate(rows):
        positive[r] = index.setdefault(row.positive, len(index))
        for n, negative in enumerate(row.negatives):
            negatives[r, n] = index.setdefault(negative.text, len(index))
            mask[r, n] = True
            generated[r, n] = negative.source is Source.GENERATED
    return PaddedBatch([row.query for row in rows], list(index), positive, negatives, mask, generated)


def micro_batches(rows: Sequence[TrainingRow], max_texts: int) -> Iterator[Sequence[TrainingRow]]:
    """Cut rows into runs of at most `max_texts` texts, at least one row each.

    A row's loss needs no other row, so gradients of the runs add up to those of the whole: memory is bounded
    at no cost in exactness.
    """
    start, texts = 0, 0
    for r, row in enumerate(rows):
        size = 2 + len(row.negatives)
        if r > start and texts + size > max_texts:
            yield rows[start:r]
            start, texts = r, 0
        texts += size
    if start < len(rows):
        yield rows[start:]
