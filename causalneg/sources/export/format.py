"""What a format of training data is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from causalneg.sources.export.rows import Example

FileType = Literal["parquet", "jsonl"]


@dataclass(frozen=True)
class Format:
    """How examples become rows of files.

    Attributes:
        file_types: what can be written, the usual one first.
        rows: gives the rows of an example; the scores of positive and negatives where they are asked for.
        schema: gives the columns of Parquet files for so many negatives, with or without scores.
        same_width: whether every row must have the same number of negatives.
        takes_scores: whether there is a place for scores.
        shows_scores: whether scores are written unasked.
    """

    file_types: Sequence[FileType]
    rows: Callable[[Example, list[float] | None], Iterator[dict[str, Any]]]
    schema: Callable[[int, bool], pa.Schema] | None = None
    same_width: bool = False
    takes_scores: bool = True
    shows_scores: bool = False
