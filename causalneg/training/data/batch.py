"""A batch as index arrays over its distinct texts. Ragged rows are padded by mask, never by drawing again."""

from dataclasses import dataclass

import numpy as np

from causalneg.training.data.store import Data


@dataclass(frozen=True)
class Batch:
    """Rows as index arrays over their distinct texts.

    Attributes:
        queries: int32 `[rows]`, numbers of their texts.
        passages: int32 `[distinct]`, numbers of the passages; those with the same tokens are one.
        positive: int64 `[rows]`, into `passages`.
        negatives: int64 `[rows, width]`, into `passages`; what stands where `mask` is False has no meaning.
        mask: bool `[rows, width]`, True where there is a negative; width is at least 1.
        generated: bool `[rows, width]`, True where the negative's source is `generated`.
        rules: uint32 `[rows, width]`, which weight rules hold, one bit each.
        teacher: float32 `[rows, 1 + width]`, scores of the positive and the negatives, NaN where there is none.
        known: int64 `[2, pairs]`, rows and passages of the batch where the passage is a positive of the row's query.
    """

    queries: np.ndarray
    passages: np.ndarray
    positive: np.ndarray
    negatives: np.ndarray
    mask: np.ndarray
    generated: np.ndarray
    rules: np.ndarray
    teacher: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)


def _ragged(start: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places `[rows, width]` in a ragged array and the mask of those that are there."""
    first, last = start[rows], start[rows + 1]
    width = max(1, int((last - first).max(initial=0)))
    places = first[:, None] + np.arange(width)
    mask = places < last[:, None]
    return np.where(mask, places, 0), mask


def _taken(array: np.ndarray, places: np.ndarray, mask: np.ndarray, absent: float = 0) -> np.ndarray:
    """Return a ragged array's values at places, and `absent` where the mask is False."""
    if not len(array):  # no row has a value
        return np.full(places.shape, absent, array.dtype)
    return np.where(mask, array[places], np.asarray(absent, array.dtype))


def make_batch(data: Data, rows: np.ndarray, without: int = 0) -> Batch:
    """Bring ragged rows to one width by mask.

    Args:
        data: holds the rows.
        rows: their numbers; at least one.
        without: bits of the rules whose negatives are left out.
    """
    places, there = _ragged(data["row.start"], rows)
    rules = _taken(data["negative.rules"], places, there)
    mask = there & (rules & np.uint32(without) == 0)
    positive = np.asarray(data["row.positive"][rows])
    negatives = _taken(data["negative.passage"], places, mask)
    numbers = np.concatenate([positive, negatives[mask]])
    keys, first, inverse = np.unique(data["passage.key"][numbers], return_index=True, return_inverse=True)
    index = np.zeros(mask.shape, np.int64)
    index[mask] = inverse[len(rows) :]

    queries = np.asarray(data["row.query"][rows])
    known_places, known_mask = _ragged(data["known.start"], queries)
    row, _ = np.nonzero(known_mask)
    known_keys = data["passage.key"][data["known.passage"][known_places[known_mask]]]
    at = np.minimum(np.searchsorted(keys, known_keys), len(keys) - 1)
    here = keys[at] == known_keys
    teacher = _taken(data["negative.teacher"], places, mask, np.nan)
    return Batch(
        queries=queries,
        passages=numbers[first],
        positive=inverse[: len(rows)].astype(np.int64),
        negatives=index,
        mask=mask,
        generated=_taken(data["negative.generated"], places, mask),
        rules=rules,
        teacher=np.concatenate([data["row.teacher"][rows][:, None], teacher], axis=1),
        known=np.stack([row[here], at[here]]).astype(np.int64),
    )


def row_tokens(data: Data, rows: np.ndarray) -> np.ndarray:
    """Return the tokens of each row with all its texts, int64 `[rows]`."""
    places, mask = _ragged(data["row.start"], rows)
    negatives = _taken(data["negative.passage"], places, mask)
    of_negatives = np.where(mask, data.lengths("passage", negatives), 0).sum(axis=1)
    own = data.lengths("query", data["row.query"][rows]) + data.lengths("passage", data["row.positive"][rows])
    return np.asarray(own + of_negatives)
