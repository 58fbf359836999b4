"""Chat messages: the query, one positive, and the negatives, the mined ones first, as ms-swift reads them for InfoNCE.

Source: modelscope/ms-swift, docs/source_en/BestPractices/Embedding.md, «Format for InfoNCE».
"""

from collections.abc import Iterator
from typing import Any

from causalneg.sources.export.format import Format
from causalneg.sources.export.rows import Example


def _message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _rows(example: Example, _: list[float] | None) -> Iterator[dict[str, Any]]:
    yield {
        "messages": _message(example.query),
        "positive_messages": [_message(example.positive.full_text)],
        "negative_messages": [_message(d.full_text) for d in example.negatives],
    }


FORMAT = Format(("jsonl",), _rows, takes_scores=False)
