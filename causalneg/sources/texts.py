"""Brings a text into the one form in which it is kept, and says what was changed or found in it."""

import re
import unicodedata

_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")


def whole(text: str) -> str:
    """Return a text as UTF-8 can hold it: halves of a character (surrogates) are joined, and a lone one is U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def settled(text: str) -> tuple[str, list[str]]:
    """Return a text whole and in Unicode's form NFC, and the kinds of outcomes that it met.

    HTML entities stay as they stand: nobody can tell `&lt;` of a page's source from that of a text about HTML.
    """
    kinds = ["html_entities"] if _ENTITY.search(text) else []
    mended = whole(text)
    if mended != text:
        kinds.append("lone_surrogate")
    if not unicodedata.is_normalized("NFC", mended):
        mended = unicodedata.normalize("NFC", mended)
        kinds.append("recomposed")
    return mended, kinds
