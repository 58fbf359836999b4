"""Texts of any origin in Markdown."""

import html
import re


def inline(text: str) -> str:
    """Return a text as Markdown for the middle of a line that shows it as it is: no mark-up of its own, no HTML."""
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
