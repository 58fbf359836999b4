"""Lays the tokens of a text along its segments."""

import itertools
from bisect import bisect_right
from collections.abc import Sequence


def owners(tokens: list[str], segments: Sequence[str]) -> list[int] | None:
    """Find the segment of each token but the first by the tokens' texts.

    They are laid along the text from its end: at its start there may be a special token, which counts for nothing.
    vLLM writes the first parts of a character as empty tokens; they lie where the character begins. (`text_offset`
    says less: it is shifted by special tokens, and some servers leave it out or fill it with -1.)

    Returns:
        Numbers of segments; None where the tokens don't make up the text.
    """
    text, ends = "".join(segments), list(itertools.accumulate(map(len, segments)))
    found, end = [], len(text)
    for token in reversed(tokens[1:]):
        start = end - len(token)
        if start < 0 or text[start:end] != token:
            return None
        # The character in the token's middle decides.
        found.append(min(bisect_right(ends, (start + end) // 2), len(segments) - 1))
        end = start
    return found[::-1] if text[:end] in ("", tokens[0]) else None
