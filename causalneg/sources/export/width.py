"""How many negatives a row gets."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from causalneg.examples import RowIds


def cut(row: RowIds, most: int) -> RowIds:
    """Keep at most so many negatives of a pair; the last mined ones give way, then the last generated ones."""
    generated = row.generated[:most]
    return replace(row, mined=row.mined[: most - len(generated)], generated=generated)


def size(row: RowIds) -> int:
    """Return how many negatives a pair has."""
    return len(row.mined) + len(row.generated)


def best_width(rows: Sequence[RowIds]) -> int:
    """Return the number of negatives that, taken of every row that has them, keeps most negatives in all.

    Of equally good numbers it is the largest; 0 where there are no rows.
    """
    having = Counter(size(row) for row in rows)
    rows_left, best = 0, (0, 0)
    for width in sorted(having, reverse=True):
        rows_left += having[width]
        best = max(best, (width * rows_left, width))
    return best[1]


def fit(rows: Sequence[RowIds], most: int | None, same_width: bool) -> list[RowIds]:
    """Cut rows to at most so many negatives and, where all must have as many, leave out those with fewer."""
    if same_width:
        width = most or best_width(rows)
        return [cut(row, width) for row in rows if size(row) >= width]
    return list(rows) if most is None else [cut(row, most) for row in rows]
