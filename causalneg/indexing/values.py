"""The values that stand at one place of the passages' metadata, by their type, to be compared as whole arrays.

Numbers keep their exact value, however large: they lie in order, and a bound is looked for among them as Python
compares whole numbers with fractions, which rounds neither.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg.filters import Scalar, timestamp
from causalneg.json_path import EACH, Step

if TYPE_CHECKING:
    import duckdb

Number = int | float

# What stands at the place, the elements of a list one by one. A whole number beyond 64 bits stays a text.
_VALUES = r"""
WITH found AS ({found}),
single AS (
    SELECT n, v, false AS element FROM found WHERE json_type(v) <> 'ARRAY'
    UNION ALL SELECT n, unnest(json_extract(v, '$[*]')), true FROM found WHERE json_type(v) = 'ARRAY'
),
typed AS (SELECT n, element, json_type(v) AS kind, v ->> '$' AS value FROM single),
sized AS (
    SELECT *, kind LIKE '%INT' AS small,
        kind LIKE '%INT' AND TRY_CAST(value AS BIGINT) IS NULL
            OR kind = 'DOUBLE' AND regexp_full_match(value, '-?\d+') AS large
    FROM typed
)
SELECT n,
    kind = 'NULL' AND NOT element AS is_null,
    kind <> 'NULL' OR element AS is_something,
    CASE WHEN kind = 'VARCHAR' THEN value END AS text,
    CASE WHEN small AND NOT large THEN TRY_CAST(value AS BIGINT) END AS integer,
    CASE WHEN large THEN value END AS large_integer,
    CASE WHEN kind = 'DOUBLE' AND NOT large THEN TRY_CAST(value AS DOUBLE) END AS fraction,
    CASE WHEN kind = 'BOOLEAN' THEN value = 'true' END AS truth
FROM sized
"""


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers in ascending order, and the row of each, int32 `[values]`.

    Attributes:
        exact: makes one of them a number of Python.
    """

    rows: np.ndarray
    values: np.ndarray | list[int]
    exact: Callable[..., Number]

    @classmethod
    def of(cls, rows: np.ndarray, values: np.ndarray, exact: Callable[..., Number]) -> "Numbers":
        """Bring numbers into their order."""
        order = np.argsort(values, kind="stable")
        return cls(rows[order], values[order], exact)

    def is_among(self, wanted: Sequence[Scalar]) -> np.ndarray:
        """Return which are equal to a wanted one, bool `[values]`: 1 is 1.0, 0 is -0.0, and true is not 1."""
        found = np.zeros(len(self.values), bool)
        for value in wanted:
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[self._below(value) : self._up_to(value)] = True
        return found

    def within(self, bounds: Mapping[str, Number]) -> np.ndarray:
        """Return the rows of those within bounds, by the names `gt`, `gte`, `lt` and `lte`."""
        starts = [self._up_to(bounds["gt"])] if "gt" in bounds else [0]
        stops = [self._below(bounds["lt"])] if "lt" in bounds else [len(self.values)]
        starts += [self._below(bounds["gte"])] if "gte" in bounds else []
        stops += [self._up_to(bounds["lte"])] if "lte" in bounds else []
        return self.rows[max(starts) : min(stops)]

    def _below(self, bound: Number) -> int:
        return bisect_left(self.values, bound, key=self.exact)

    def _up_to(self, bound: Number) -> int:
        return bisect_right(self.values, bound, key=self.exact)


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts as numbers of the distinct ones, and the row of each, int32 `[values]`."""

    rows: np.ndarray
    values: pa.DictionaryArray

    def is_among(self, wanted: Sequence[Scalar]) -> np.ndarray:
        """Return which are a wanted one, bool `[values]`."""
        texts = pa.array([v for v in wanted if isinstance(v, str)], pa.string())
        words = pc.is_in(self.values.dictionary, value_set=texts).to_numpy(zero_copy_only=False)
        return np.asarray(words[self.values.indices.to_numpy()])

    def dates(self) -> Numbers:
        """Return those that are dates, as microseconds from 1970."""
        moments = [timestamp(text) for text in self.values.dictionary.to_pylist()]
        known = np.array([moment is not None for moment in moments], bool)
        numbers = np.array([moment or 0 for moment in moments], np.int64)
        words = self.values.indices.to_numpy()
        kept = known[words]
        return Numbers.of(self.rows[kept], numbers[words[kept]], int)


@dataclass(frozen=True, eq=False)
class Truths:
    """Truth values, and the row of each, int32 `[values]`."""

    rows: np.ndarray
    values: np.ndarray

    def is_among(self, wanted: Sequence[Scalar]) -> np.ndarray:
        """Return which are a wanted one, bool `[values]`."""
        return np.isin(self.values, [v for v in wanted if isinstance(v, bool)])


@dataclass(frozen=True, eq=False)
class Values:
    """What stands at one place of the metadata.

    Attributes:
        texts: with the truth values, what can only be equal.
        numbers: by how they are kept: whole ones of 64 bits, larger ones, fractions.
        null: rows in which null stands there.
        something: rows in which something stands there that is neither null nor an empty list.
    """

    texts: Texts
    truths: Truths
    numbers: tuple[Numbers, ...]
    null: np.ndarray
    something: np.ndarray


@cache
def _database() -> "duckdb.DuckDBPyConnection":
    """Return a database in memory; each use takes a cursor of its own, which threads may do."""
    import duckdb

    return duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})


def _found(path: Sequence[Step]) -> tuple[str, dict[str, str]]:
    """Return a query for the values at a place, with its parameters; names come in as these, as JSON pointers."""
    query, pointers = "SELECT n, metadata AS v FROM passages WHERE metadata <> ''", {}
    for number, step in enumerate(path):
        if step is EACH:
            query = f"SELECT n, unnest(json_extract(v, '$[*]')) AS v FROM ({query}) WHERE json_type(v) = 'ARRAY'"  # noqa: S608
            continue
        holder = "OBJECT" if isinstance(step, str) else "ARRAY"
        pointers[f"p{number}"] = "/" + str(step).replace("~", "~0").replace("/", "~1")
        query = f"SELECT n, json_extract(v, $p{number}) AS v FROM ({query}) WHERE json_type(v) = '{holder}'"  # noqa: S608
    return query, pointers


def read_values(metadata: pa.ChunkedArray, path: Sequence[Step]) -> Values:
    """Read what stands at one place.

    Args:
        metadata: JSON objects as text, "" for none, `[rows]`.
        path: to the place.
    """
    numbers = pa.array(np.arange(len(metadata), dtype=np.int32))
    found, pointers = _found(path)
    with _database().cursor() as cursor:
        cursor.register("passages", pa.table({"n": numbers, "metadata": metadata}))
        table = cursor.sql(_VALUES.format(found=found), params=pointers).to_arrow_table()

    def column(name: str) -> tuple[np.ndarray, pa.Array]:
        values = table.column(name).combine_chunks()
        return table.column("n").filter(values.is_valid()).to_numpy(), values.drop_null()

    text_rows, texts = column("text")
    truth_rows, truths = column("truth")
    integer_rows, integers = column("integer")
    fraction_rows, fractions = column("fraction")
    return Values(
        texts=Texts(text_rows, texts.dictionary_encode()),
        truths=Truths(truth_rows, truths.to_numpy(zero_copy_only=False)),
        numbers=(
            Numbers.of(integer_rows, integers.to_numpy(), int),
            Numbers.of(fraction_rows, fractions.to_numpy(), float),
            _large(*column("large_integer")),
        ),
        null=table.column("n").filter(table.column("is_null")).to_numpy(),
        something=table.column("n").filter(table.column("is_something")).to_numpy(),
    )


def _large(rows: np.ndarray, texts: pa.Array) -> Numbers:
    values = [int(text) for text in texts.to_pylist()]
    order = sorted(range(len(values)), key=values.__getitem__)
    return Numbers(rows[order], [values[n] for n in order], int)
