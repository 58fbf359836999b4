"""Tevatron: a query with lists of whole passages, the layout that all its versions read.

Its later layout names passages by id and keeps texts in a corpus of its own; in it the text of a generated
negative would stand far from its query, and nothing else would be gained.
Source: texttron/tevatron, src/tevatron/retriever/dataset.py.
"""

from collections.abc import Iterator
from typing import Any

from causalneg.sources.export.format import Format
from causalneg.sources.export.rows import Document, Example


def _passage(document: Document, score: float | None) -> dict[str, Any]:
    passage = {"docid": document.id, "title": document.title, "text": document.text}
    return passage if score is None else passage | {"score": score}


def _rows(example: Example, scores: list[float] | None) -> Iterator[dict[str, Any]]:
    documents = (example.positive, *example.negatives)
    passages = [_passage(d, scores[n] if scores else None) for n, d in enumerate(documents)]
    yield {
        "query_id": example.query_id,
        "query": example.query,
        "positive_passages": passages[:1],
        "negative_passages": passages[1:],
    }


FORMAT = Format(("jsonl",), _rows)
