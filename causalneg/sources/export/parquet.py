"""Plain Parquet: a row per pair with ids, texts, the source of every negative, and every score there is."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from causalneg.sources.export.format import Format
from causalneg.sources.export.rows import Document, Example

_DOCUMENT = {"id": pa.string(), "title": pa.string(), "text": pa.string()}
_SCORES = {"dense_score": pa.float64(), "cross_score": pa.float64()}
_SCHEMA = pa.schema(
    {
        "query_id": pa.string(),
        "query": pa.string(),
        "positive": pa.struct(_DOCUMENT | _SCORES),
        "negatives": pa.list_(pa.struct(_DOCUMENT | {"source": pa.string()} | _SCORES)),
    }
)


def _document(document: Document) -> dict[str, Any]:
    scores = {f"{scorer}_score": score for scorer, score in document.scores.items()}
    return {"id": document.id, "title": document.title, "text": document.text} | scores


def _rows(example: Example, _: list[float] | None) -> Iterator[dict[str, Any]]:
    yield {
        "query_id": example.query_id,
        "query": example.query,
        "positive": _document(example.positive),
        "negatives": [_document(d) | {"source": d.source} for d in example.negatives],
    }


FORMAT = Format(("parquet",), _rows, lambda width, scored: _SCHEMA, shows_scores=True)
