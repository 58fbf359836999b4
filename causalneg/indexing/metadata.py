"""Which rows of an index a filter lets through, from the metadata that stands beside the passages.

The JSON is read once for each key that filters ask for, into arrays of the values and their rows; a condition is then
a comparison of arrays. What filters gave is kept, too.
"""

import threading
from functools import lru_cache, partial, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg.filters import Condition, FieldCondition, Filter, HasId, IsEmpty, IsNull, Match
from causalneg.indexing.values import Numbers, Texts, Truths, Values, read_values
from causalneg.json_path import Step

_KEYS = 16  # whose values are kept
_MASK_BYTES = 64 << 20  # of the kept masks, a byte per row


def _matching(values: Values, match: Match) -> list[np.ndarray]:
    """Return the rows of what matches, by type."""
    columns: list[Texts | Truths | Numbers] = [values.texts, values.truths, *values.numbers]
    if match.except_ is not None:
        return [column.rows[~column.is_among(match.except_)] for column in columns]
    wanted = [match.value] if match.value is not None else match.any or []
    return [column.rows[column.is_among(wanted)] for column in columns]


class MetadataTable:
    """The metadata of an index's passages; may be used from several threads.

    Args:
        metadata: JSON objects as text, "" for none, `[rows]`.
        ids: of the passages, `[rows]`.
    """

    def __init__(self, metadata: pa.ChunkedArray, ids: pa.ChunkedArray) -> None:
        self._metadata, self._ids = metadata, ids
        self._lock = threading.Lock()  # what two ask for at once is read once
        self._read = lru_cache(maxsize=_KEYS)(partial(read_values, metadata))
        self._read_dates = lru_cache(maxsize=_KEYS)(lambda path: self._read(path).texts.dates())
        masks = max(8, _MASK_BYTES // max(1, len(metadata)))
        self._mask_of = lru_cache(maxsize=min(masks, 1024))(self._evaluate)

    def mask(self, filter_: Filter) -> np.ndarray:
        """Return which rows a filter lets through, bool `[rows]`; not to be changed.

        A key that a passage lacks matches nothing. A list matches when one of its elements does.
        """
        return self._mask_of(filter_.model_dump_json(by_alias=True, exclude_defaults=True))

    def _evaluate(self, text: str) -> np.ndarray:
        mask = self._filtered(Filter.model_validate_json(text))
        mask.setflags(write=False)
        return mask

    def _filtered(self, filter_: Filter) -> np.ndarray:
        mask = np.ones(len(self._metadata), bool)
        for condition in filter_.must:
            mask &= self._condition(condition)
        if filter_.should:
            mask &= reduce(np.logical_or, map(self._condition, filter_.should))
        for condition in filter_.must_not:
            mask &= ~self._condition(condition)
        return mask

    def _condition(self, condition: Condition) -> np.ndarray:
        if isinstance(condition, Filter):
            return self._filtered(condition)
        if isinstance(condition, HasId):
            found = pc.is_in(self._ids, value_set=pa.array(condition.has_id, pa.string()))
            return np.asarray(found.to_numpy())
        if isinstance(condition, IsNull):
            return self._mask([self._values(condition.is_null.path).null])
        if isinstance(condition, IsEmpty):
            return ~self._mask([self._values(condition.is_empty.path).something])
        return self._mask(self._rows(condition))

    def _rows(self, condition: FieldCondition) -> list[np.ndarray]:
        """Return the rows in which a field is what it must be, by the type of its values."""
        if condition.match is not None:
            return _matching(self._values(condition.path), condition.match)
        assert condition.range is not None
        among = self._dates(condition.path) if condition.range.is_of_dates else self._values(condition.path).numbers
        return [column.within(condition.range.numbers) for column in among]

    def _values(self, path: tuple[Step, ...]) -> Values:
        with self._lock:
            return self._read(path)

    def _dates(self, path: tuple[Step, ...]) -> list[Numbers]:
        with self._lock:
            return [self._read_dates(path)]

    def _mask(self, rows: list[np.ndarray]) -> np.ndarray:
        mask = np.zeros(len(self._metadata), bool)
        for some in rows:
            mask[some] = True
        return mask
