"""Wrong names, and the right ones that were probably meant."""

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """Return «; did you mean …?» for the known name nearest to a wrong one, or nothing."""
    last = name.rsplit(".", 1)[-1]
    matches = difflib.get_close_matches(name, known, 1, 0.5) or [k for k in known if k.rsplit(".", 1)[-1] == last]
    return f"; did you mean {matches[0]!r}?" if matches else ""
