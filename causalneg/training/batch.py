"""Training rows, their order, and their padding. Ragged rows are padded by mask, never by drawing again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from causalneg.examples import RowIds, Texts
from causalneg.records import Source, content_id


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


def with_texts(rows: Sequence[RowIds], texts: Texts) -> list[TrainingRow]:
    """Put texts in place of ids; every id must have its text."""
    return [
        TrainingRow(
            texts.queries[row.query_id],
            texts.passages[row.positive_id].full_text,
            (
                *(NegativeText(texts.passages[i].full_text, Source.MINED) for i in row.mined),
                *(NegativeText(texts.generated[i].full_text, Source.GENERATED) for i in row.generated),
            ),
        )
        for row in rows
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
