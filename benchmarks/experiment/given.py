"""Negatives that no stage made: read from files, or other texts that stand for them."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from causalneg.records import Lineage, Negative, Passage, ViolationType, content_id


def json_rows(path: Path, name: str = ".jsonl") -> Iterator[dict[str, Any]]:
    """Read the rows of a JSONL file, or of the only one in a zip whose name ends with `name`."""
    if path.suffix != ".zip":
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
        return
    with zipfile.ZipFile(path) as archive:
        (member,) = (n for n in archive.namelist() if n.endswith(name))
        with io.TextIOWrapper(archive.open(member), encoding="utf-8") as file:
            yield from map(json.loads, file)


def given_lineage(model: str) -> Lineage:
    """Return the lineage of a row that was not generated here: whose it is, and nothing else."""
    return Lineage(
        model=model, model_fingerprint="", prompt_version="", profile="", seed=0, temperature=0.0, max_tokens=0
    )


def given_negative(query_id: str, positive: Passage, text: str, model: str, **facts: Any) -> Negative:
    """Return the row of a text.

    Written negatives begin with the title as plain words; where it is the positive's, it becomes the row's title, so
    that both are joined with their text in the same way and no encoder tells them apart by that.

    Args:
        query_id: of the query.
        positive: of the pair.
        text: of the negative.
        model: whose text it is.
        facts: fields of the row, where they are known; a violation must be named, so one is, whether it applies or not.
    """
    titled = "title" not in facts and bool(positive.title) and text.startswith(positive.title + " ")
    title, rest = (positive.title, text[len(positive.title) :].strip()) if titled else ("", text)
    fields = {
        "id": content_id("given", query_id, positive.id, title, rest, model),
        "analysis_id": "",
        "title": title,
        "text": rest,
        "requirement_id": 0,
        "requirement": "",
        "violation": ViolationType.INTENT_DRIFT,
        "explanation": "",
        "verdict": "accepted",
    }
    return Negative(
        query_id=query_id,
        positive_id=positive.id,
        mode="rewrite",
        origin="from_scratch",
        lineage=given_lineage(model),
        **(fields | facts),
    )
