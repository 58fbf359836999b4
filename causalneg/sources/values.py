"""Checks what is in a field: texts, scores, metadata."""

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from causalneg.records import metadata_text
from causalneg.sources.items import EXCERPT, BrokenError

_SCORE = re.compile(r"\s*([+-]?[0-9]{1,9})(\.0*)?\s*", re.ASCII)


def is_empty(value: Any) -> bool:  # noqa: ANN401 - it may be anything
    """Whether there is nothing in a field: none, or an empty text, list or object."""
    return value is None or (isinstance(value, (str, list, Mapping)) and not value)


def _without_nan(value: Any) -> tuple[Any, int]:  # noqa: ANN401 - any JSON
    """Return a value without the numbers in it that JSON has not (NaN and infinity), and how many these were."""
    if isinstance(value, Mapping):
        kept = {name: _without_nan(inner) for name, inner in value.items() if not _is_nan(inner)}
        return {name: inner for name, (inner, _) in kept.items()}, _left_out(value.values(), kept.values())
    if isinstance(value, list):
        members = [_without_nan(inner) for inner in value if not _is_nan(inner)]
        return [inner for inner, _ in members], _left_out(value, members)
    return value, 0


def _left_out(before: Collection[Any], after: Collection[tuple[Any, int]]) -> int:
    return len(before) - len(after) + sum(number for _, number in after)


def _is_nan(value: Any) -> bool:  # noqa: ANN401 - any JSON
    return isinstance(value, float) and not math.isfinite(value)


def checked_metadata(value: Any, name: str | int) -> tuple[str, int]:  # noqa: ANN401 - it may be anything
    """Return what must be an object, or the text of one, as rows hold it, and how many values were left out.

    It is "" where it is missing or empty. A value is left out that is NaN or infinite: JSON has no such numbers.

    Raises:
        BrokenError: it is something else, or nested too deeply.
    """
    if value is None or value == "":
        return "", 0
    try:
        found = json.loads(value) if isinstance(value, str) else value
        if isinstance(found, Mapping):
            return _metadata(found)
    except (ValueError, RecursionError):
        found = None
    raise BrokenError(
        "wrong_metadata",
        f"field {name!r} is no JSON object but {excerpt(value)[:40]!r}; give an object, "
        "or leave the field out with import.fields={metadata: []}",
    )


def _metadata(found: Mapping[str, Any]) -> tuple[str, int]:
    try:
        return metadata_text(found), 0
    except ValueError:
        finite, left_out = _without_nan(found)
        return metadata_text(finite), left_out


def checked_text(value: Any, name: str | int, may_be_empty: bool = False) -> str:  # noqa: ANN401 - it may be anything
    """Return a value that must be a text.

    Raises:
        BrokenError: it is none, or an empty one where that is not allowed.
    """
    if type(value) is str and (may_be_empty or (value and not value.isspace())):
        return value
    if value is None:
        raise BrokenError("missing_field", f"field {name!r} is missing; give each row a text there")
    if isinstance(value, str):
        raise BrokenError("empty_text", f"field {name!r} is empty; give each row a text there")
    raise BrokenError("wrong_type", f"field {name!r} is no text but {type(value).__name__}; give each row a text there")


def score_of(value: Any) -> int:  # noqa: ANN401 - it may be anything
    """Return a relevance score, which may be written `1.0`.

    Raises:
        BrokenError: it is no whole number of at most nine digits.
    """
    if type(value) in (int, float):
        value = str(value)
    found = _SCORE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BrokenError("wrong_score", f"a whole-number score is needed, not {str(value)[:20]!r}")
    return int(found.group(1))


def excerpt(content: object) -> str:
    """Return the beginning of what a row holds, for the user to recognise it."""
    if isinstance(content, bytes):
        return content[: 4 * EXCERPT].decode("utf-8", "replace")[:EXCERPT].strip()
    if isinstance(content, Mapping):
        return ", ".join(f"{name}: {_shown(value)}" for name, value in content.items())[:EXCERPT]
    return _shown(content)


def _shown(value: object) -> str:
    try:
        return str(value)[:EXCERPT].strip()
    except RecursionError:  # JSON may be nested as deeply as Python can read it, and deeper than it can show it
        return "…"
