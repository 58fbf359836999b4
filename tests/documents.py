"""The code blocks of the documents, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?```(?P<language>sh|python)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_PUNCTUATION = "();<>|&"  # behind which another command may begin


@dataclass(frozen=True)
class Block:
    """A block that a reader may copy.

    Attributes:
        place: file and line.
        section: its file and the heading above it; blocks of a section are run one after the other.
        language: sh or python.
        text: what is in it.
        reason: why the tests cannot run it; None where they do.
    """

    place: str
    section: str
    language: str
    text: str
    reason: str | None


def blocks(repository: Path) -> list[Block]:
    """Return the blocks of all documents for users, in their order."""
    files = [repository / "README.md", repository / "cluster" / "README.md", *sorted(repository.glob("docs/**/*.md"))]
    found = []
    for file in files:
        text, name = file.read_text(encoding="utf-8"), str(file.relative_to(repository))
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("text"))
            heading = ([h[1] for h in _HEADING.finditer(text, 0, match.start())] or [""])[-1]
            found.append(
                Block(f"{name}:{line}", f"{name}: {heading}", match["language"], match["text"], match["reason"])
            )
    return found


def commands(script: str) -> list[list[str]]:
    """Return the words of each command of a shell script; what stands in $(…) or behind -- is one of its own."""
    found: list[list[str]] = []
    for line in _lines(script):
        found.append([])
        for word in line:
            if word == "--" or set(word) <= set(_PUNCTUATION):
                found.append([])
            elif found[-1] or not re.match(r"\w+=", word):  # not a variable that is set before the command
                found[-1].append(word)
    return [words for words in found if words]


def _lines(script: str) -> Iterator[list[str]]:
    """Split a script into lines, where quotes and backslashes do not go on with the next, and these into words."""
    begun = ""
    for line in script.replace("\\\n", " ").splitlines():
        begun += line
        lexer = shlex.shlex(begun, posix=True, punctuation_chars=_PUNCTUATION)
        lexer.whitespace_split = True
        try:
            yield list(lexer)
        except ValueError:  # within quotes
            begun += "\n"
        else:
            begun = ""
    if begun:
        raise ValueError(f"a quote is not closed: {begun}")
