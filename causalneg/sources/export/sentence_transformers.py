"""sentence-transformers: columns anchor, positive, negative_1 to negative_n, as its losses take them.

`label` holds the scores of the positive and the negatives, as MarginMSELoss and DistillKLDivLoss take them.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from causalneg.sources.export.format import Format
from causalneg.sources.export.rows import Example


def _rows(example: Example, scores: list[float] | None) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {"anchor": example.query, "positive": example.positive.full_text}
    row |= {f"negative_{n}": d.full_text for n, d in enumerate(example.negatives, 1)}
    yield row if scores is None else row | {"label": scores}


def _schema(width: int, scored: bool) -> pa.Schema:
    texts = ["anchor", "positive", *(f"negative_{n}" for n in range(1, width + 1))]
    label = [("label", pa.list_(pa.float64()))] if scored else []
    return pa.schema([*((name, pa.string()) for name in texts), *label])


FORMAT = Format(("parquet", "jsonl"), _rows, _schema, same_width=True)
