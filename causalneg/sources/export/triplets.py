"""Triplets of sentence-transformers: a row with anchor, positive and negative for each negative, so none is lost."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from causalneg.sources.export.format import Format
from causalneg.sources.export.rows import Example


def _rows(example: Example, scores: list[float] | None) -> Iterator[dict[str, Any]]:
    for number, document in enumerate(example.negatives, 1):
        row: dict[str, Any] = {
            "anchor": example.query,
            "positive": example.positive.full_text,
            "negative": document.full_text,
        }
        yield row if scores is None else row | {"label": [scores[0], scores[number]]}


def _schema(_: int, scored: bool) -> pa.Schema:
    label = [("label", pa.list_(pa.float64()))] if scored else []
    return pa.schema([*((name, pa.string()) for name in ("anchor", "positive", "negative")), *label])


FORMAT = Format(("parquet", "jsonl"), _rows, _schema)
