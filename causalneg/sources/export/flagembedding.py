"""FlagEmbedding: query, pos and neg, and for distillation pos_scores and neg_scores.

`prompt` is left out: where it stands it takes the place of the instruction that the user gives the trainer.
Source: FlagOpen/FlagEmbedding, FlagEmbedding/abc/finetune/embedder/AbsDataset.py.
"""

from collections.abc import Iterator
from typing import Any

from causalneg.sources.export.format import Format
from causalneg.sources.export.rows import Example


def _rows(example: Example, scores: list[float] | None) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {
        "query": example.query,
        "pos": [example.positive.full_text],
        "neg": [d.full_text for d in example.negatives],
    }
    yield row if scores is None else row | {"pos_scores": scores[:1], "neg_scores": scores[1:]}


FORMAT = Format(("jsonl",), _rows)
