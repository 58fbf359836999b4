"""Which rows of an index a filter lets through, from the metadata that stands beside the passages.

The JSON is read once for each key that filters ask for, into arrays of the values and their rows; a condition is then
a comparison of arrays. What filters gave is kept, too.
"""

import threading
from collections.abc import Sequence
from functools import cache, lru_cache, partial, reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg.filters import Condition, FieldCondition, Filter, HasId, Match, Range, Scalar

if TYPE_CHECKING:
    import duckdb

_KEYS = 16  # whose values are kept
_MASK_BYTES = 64 << 20  # of the kept masks, a byte per row

# Every scalar under a key with its row, the elements of a list one by one; nulls and objects are no values.
_VALUES = """
WITH found AS (SELECT n, json_extract(metadata, $pointer) AS v FROM passages WHERE metadata <> ''),
single AS (
    SELECT n, v FROM found WHERE json_type(v) <> 'ARRAY'
    UNION ALL SELECT n, unnest(CAST(v AS JSON[])) FROM found WHERE json_type(v) = 'ARRAY'
),
typed AS (SELECT n, json_type(v) AS kind, v ->> '$' AS value FROM single)
SELECT n,
    CASE WHEN kind = 'VARCHAR' THEN value END AS text,
    CASE WHEN kind IN ('BIGINT', 'UBIGINT') THEN TRY_CAST(value AS BIGINT) END AS integer,
    CASE WHEN kind = 'DOUBLE' OR kind LIKE '%INT' AND TRY_CAST(value AS BIGINT) IS NULL
        THEN TRY_CAST(value AS DOUBLE) END AS fraction,
    CASE WHEN kind = 'BOOLEAN' THEN value = 'true' END AS truth
FROM typed
"""


class _Column(NamedTuple):
    """The values of one type under a key, and the row of each, int32 `[values]`."""

    rows: np.ndarray
    values: pa.Array


class _Values(NamedTuple):
    """The values under a key by their type; texts are kept as numbers of the distinct ones."""

    text: _Column
    integer: _Column
    fraction: _Column
    truth: _Column


@cache
def _database() -> "duckdb.DuckDBPyConnection":
    """Return a database in memory; each use takes a cursor of its own, which threads may do."""
    import duckdb

    return duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})


def _pointer(key: str) -> str:
    """Return a dotted key as a JSON pointer, in which no sign has another meaning."""
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in key.split("."))


def _values(metadata: pa.ChunkedArray, key: str) -> _Values:
    """Read what stands under a key."""
    numbers = pa.array(np.arange(len(metadata), dtype=np.int32))
    with _database().cursor() as cursor:
        cursor.register("passages", pa.table({"n": numbers, "metadata": metadata}))
        table = cursor.sql(_VALUES, params={"pointer": _pointer(key)}).to_arrow_table()
    columns = []
    for name in _Values._fields:
        column = table.column(name).combine_chunks()
        rows = table.column("n").filter(column.is_valid()).to_numpy()
        values = column.drop_null()
        columns.append(_Column(rows, values.dictionary_encode() if name == "text" else values))
    return _Values(*columns)


def _is_among(values: _Values, wanted: Sequence[Scalar]) -> list[np.ndarray]:
    """Return for each type which of its values are among the wanted ones: 1 is 1.0, and true is not 1."""
    texts = [v for v in wanted if isinstance(v, str)]
    numbers = [v for v in wanted if isinstance(v, int | float) and not isinstance(v, bool)]
    integers = [int(v) for v in numbers if v == int(v) and abs(v) < 2**63]
    # A whole number beyond 64 bits was read as the nearest fraction.
    fractions = [float(v) for v in numbers if abs(v) < 2**1023 and (float(v) == v or abs(v) >= 2**63)]
    truths = [v for v in wanted if isinstance(v, bool)]
    words = pc.is_in(values.text.values.dictionary, value_set=pa.array(texts, pa.string()))
    text = words.to_numpy(zero_copy_only=False)[values.text.values.indices.to_numpy()]
    plain = (
        (values.integer, pa.array(integers, pa.int64())),
        (values.fraction, pa.array(fractions, pa.float64())),
        (values.truth, pa.array(truths, pa.bool_())),
    )
    return [text, *(pc.is_in(c.values, value_set=w).to_numpy(zero_copy_only=False) for c, w in plain)]


def _matches(values: _Values, match: Match) -> list[np.ndarray]:
    """Return for each type which of its values match."""
    if match.except_ is not None:
        return [~found for found in _is_among(values, match.except_)]
    return _is_among(values, [match.value] if match.value is not None else match.any or [])


def _within(values: _Values, bounds: Range) -> list[np.ndarray]:
    """Return for each type which of its values are within the bounds; only numbers can be."""

    def inside(numbers: np.ndarray) -> np.ndarray:
        found = np.ones(len(numbers), bool)
        for bound, compare in (
            (bounds.gt, np.greater),
            (bounds.gte, np.greater_equal),
            (bounds.lt, np.less),
            (bounds.lte, np.less_equal),
        ):
            if bound is not None:
                found &= compare(numbers, bound)
        return found

    none_of = [np.zeros(len(c.rows), bool) for c in (values.text, values.truth)]
    numbers = [inside(c.values.to_numpy()) for c in (values.integer, values.fraction)]
    return [none_of[0], *numbers, none_of[1]]


class MetadataTable:
    """The metadata of an index's passages; may be used from several threads.

    Args:
        metadata: JSON objects as text, "" for none, `[rows]`.
        ids: of the passages, `[rows]`.
    """

    def __init__(self, metadata: pa.ChunkedArray, ids: pa.ChunkedArray) -> None:
        self._metadata, self._ids = metadata, ids
        self._lock = threading.Lock()  # what two ask for at once is read once
        self._read = lru_cache(maxsize=_KEYS)(partial(_values, metadata))
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
        return self._field(condition)

    def _field(self, condition: FieldCondition) -> np.ndarray:
        with self._lock:
            values = self._read(condition.key)
        if condition.match is not None:
            found = _matches(values, condition.match)
        else:
            assert condition.range is not None
            found = _within(values, condition.range)
        mask = np.zeros(len(self._metadata), bool)
        for column, hit in zip(values, found, strict=True):
            mask[column.rows[hit]] = True
        return mask
