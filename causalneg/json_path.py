"""Where a value stands within JSON, written as qdrant does: `author.name`, `tags[]`, `parts[].size`, `"a.b"[0]`."""

import re
from json.decoder import scanstring  # type: ignore[attr-defined] # reads a string of JSON from its second sign on

EACH = None  # every element of an array
Step = str | int | None  # into an object by a name, into an array by a place, or into each of its elements

_PLAIN = re.compile(r'[^."\[\]]+')
_PLACE = re.compile(r"\[(\d{0,9})\]")


def parse_path(text: str) -> tuple[Step, ...]:
    """Read a path.

    Args:
        text: names between dots. A name with a dot, a bracket or a quote in it is written as a string of JSON, in
            quotes. `[]` leads into each element of an array, `[2]` into its third.

    Raises:
        ValueError: it is none.
    """
    steps: list[Step] = []
    at, wants_name = 0, True
    while at < len(text) or wants_name:
        if wants_name:
            name, at = _name(text, at)
            steps.append(name)
            wants_name = False
        elif text[at] == ".":
            at, wants_name = at + 1, True
        else:
            found = _PLACE.match(text, at)
            if found is None:
                raise _no_path(text)
            steps.append(int(found[1]) if found[1] else EACH)
            at = found.end()
    return tuple(steps)


def _name(text: str, at: int) -> tuple[str, int]:
    """Return the name that begins at a place, and where it ends."""
    if text.startswith('"', at):
        try:
            name, end = scanstring(text, at + 1, True)
        except ValueError as error:
            raise _no_path(text) from error
        return str(name), int(end)
    found = _PLAIN.match(text, at)
    if found is None:
        raise _no_path(text)
    return found[0], found.end()


def _no_path(text: str) -> ValueError:
    return ValueError(
        f"{text!r} is no path to a field; write it like author.name, tags[] or parts[].size, "
        'and a name with a dot, a bracket or a quote in it in quotes, like "a.b"'
    )
