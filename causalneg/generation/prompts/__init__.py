"""The prompts, as files; their version is a hash of their text."""

import hashlib
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
RELABEL = ("material", "relabel")  # the prompts of relabel; a change of its own makes generate do nothing anew


@cache
def prompt(name: str) -> str:
    """Return a prompt's text. Instructions and content are parted by a line of `===` where both exist."""
    return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")


@cache
def prompts_version(*names: str) -> str:
    """Return a hash over some prompts, or all that generate asks with: another text is another version, made anew."""
    others = {"relabel"}
    files = sorted(f for f in _FOLDER.glob("*.txt") if (f.stem in names if names else f.stem not in others))
    return hashlib.sha256("\0".join(f"{f.name}\0{f.read_text(encoding='utf-8')}" for f in files).encode()).hexdigest()[
        :12
    ]


def messages(name: str, **values: str) -> list[dict[str, str]]:
    """Fill a prompt: instructions as the system message, content as the user's.

    Content is put in by plain replacement, once, so that braces in a passage stay what they are.
    """
    instructions, content = prompt(name).split("\n===\n")
    return [{"role": "system", "content": instructions}, {"role": "user", "content": fill(content, **values)}]


def fill(template: str, **values: str) -> str:
    """Put values into a template's `{name}` places in one pass; a value's own braces are left alone."""
    out, rest = "", template
    while rest:
        starts = {name: rest.find("{" + name + "}") for name in values}
        present = {name: at for name, at in starts.items() if at >= 0}
        if not present:
            return out + rest
        name = min(present, key=lambda n: present[n])
        at = present[name]
        out, rest = out + rest[:at] + values[name], rest[at + len(name) + 2 :]
    return out


def query_segments(passage: str, query: str) -> list[str]:
    """Return the text whose last segment is the query after the passage."""
    before, after = prompt("query_likelihood").split("{query}")
    return [fill(before, passage=passage).rstrip(" "), f" {query}{after}"]
