"""The difference between a positive and its negative, word by word."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

_LONGEST_COMPARED = 2_000  # tokens between the first and the last difference; comparing takes their square
_LEAST_KEPT = 0.35  # with fewer of its words kept, a text is new, and marks would only confuse
_ISLAND = 2  # tokens kept between two changes that read better as part of one


@dataclass(frozen=True)
class Piece:
    """A stretch of a text: kept, taken out, or put in."""

    kind: Literal["kept", "removed", "inserted"]
    text: str


def _changes(before: Sequence[str], after: Sequence[str]) -> list[tuple[bool, int, int, int, int]]:
    """Return the stretches of two rows of words, as (same, start and end before, start and end after)."""
    a, b = [w.strip() for w in before], [w.strip() for w in after]
    least = min(len(a), len(b))
    head = next((i for i in range(least) if a[i] != b[i]), least)
    tail = next((i for i in range(least - head) if a[-1 - i] != b[-1 - i]), least - head)
    inner_a, inner_b = a[head : len(a) - tail], b[head : len(b) - tail]
    if max(len(inner_a), len(inner_b)) > _LONGEST_COMPARED:
        codes = [("replace", 0, len(inner_a), 0, len(inner_b))]
    else:
        codes = list(difflib.SequenceMatcher(None, inner_a, inner_b, autojunk=False).get_opcodes())
    rows = [(True, 0, head, 0, head)]
    for code, i, j, k, m in codes:
        same = code == "equal" and j - i > _ISLAND
        last = rows[-1]
        if last[0] == same:
            rows[-1] = (same, last[1], head + j, last[3], head + m)
        else:
            rows.append((same, head + i, head + j, head + k, head + m))
    return [*rows, (True, len(a) - tail, len(a), len(b) - tail, len(b))]


def marked(before: str, after: str) -> list[Piece]:
    """Compare two texts word by word.

    Returns:
        The text `after` in pieces, with what was taken out of `before` between them; all of it as kept where it has too
        little of `before` for marks to help.
    """
    old, new = (re.findall(r"\w+\s*|[^\w\s]\s*|\s+", text) for text in (before, after))
    rows = _changes(old, new)
    kept = sum(m - k for same, _, _, k, m in rows if same)
    if kept < _LEAST_KEPT * max(len(old), len(new)):
        return [Piece("kept", after)]
    pieces: list[Piece] = []
    for same, i, j, k, m in rows:
        if not same:
            pieces.append(Piece("removed", "".join(old[i:j])))
        pieces.append(Piece("kept" if same else "inserted", "".join(new[k:m])))
    return [p for p in pieces if p.text]


def abridged(pieces: Iterable[Piece], context: int) -> list[Piece]:
    """Shorten every piece of more than twice `context` words to its beginning and its end."""
    return [Piece(p.kind, shortened(p.text, context)) for p in pieces]


def shortened(text: str, context: int) -> str:
    """Shorten a text of more than twice `context` words to its beginning and its end."""
    words = re.findall(r"\S+\s*", text)
    if len(words) <= 2 * context + 1:
        return text
    return "".join(words[:context]).rstrip() + " … " + "".join(words[-context:])
