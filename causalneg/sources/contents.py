"""Tells by a file's first bytes what it is: compressed, or no data at all, whatever its name says."""

from typing import NamedTuple

from causalneg.errors import UserError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
HEAD_BYTES = 512
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_NO_TEXT = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")


class _Foreign(NamedTuple):
    """What a file is that cannot be read, by how it begins (in small letters), and the remedy."""

    begins: tuple[bytes, ...]
    what: str
    remedy: str


_FOREIGN = (
    _Foreign(
        (b"pk\x03\x04",), "a zip file (or one of Excel or another office program)", "unpack it first, or save it as CSV"
    ),
    _Foreign(tuple(b"bzh%d1ay&sy" % level for level in range(1, 10)), "compressed with bzip2", "unpack it first"),
    _Foreign((b"\xfd7zxz\x00",), "compressed with xz", "unpack it first"),
    _Foreign((b"7z\xbc\xaf\x27\x1c",), "a 7z archive", "unpack it first"),
    _Foreign((b"%pdf-",), "a PDF", "extract its text first"),
    _Foreign((b"version https://git-lfs",), "the pointer of Git LFS to a file", "get the file with `git lfs pull`"),
    _Foreign((b"<!doctype html", b"<html"), "a web page, as of a failed download", "download the file anew"),
)


def refuse_foreign(head: bytes, where: str) -> None:
    """Make sure that a file does not begin as something that holds no rows.

    Raises:
        UserError: it does; it says what the file is and what to do.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for begins, what, remedy in _FOREIGN:
        if start.startswith(begins):
            raise UserError(f"{where} is {what}; {remedy}.")


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file may be those of a text, which a cut at its last character is, too."""
    if any(byte in _NO_TEXT for byte in head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and error.reason == "unexpected end of data"
    return True


def compression_of(head: bytes, where: str) -> str | None:
    """Return how a file is compressed, as Arrow calls it, or None: by its first bytes, and else by its name.

    Where a name says compressed and the bytes are those of a text, it is one that was not compressed, or was unpacked
    under its old name.

    Raises:
        UserError: it is something that holds no rows.
    """
    for magic, compression in _MAGIC.items():
        if head.startswith(magic):
            return compression
    refuse_foreign(head, where)
    by_name = next((name for suffix, name in COMPRESSIONS.items() if where.lower().endswith(suffix)), None)
    return None if _is_text(head) else by_name
