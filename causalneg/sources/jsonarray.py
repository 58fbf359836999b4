"""Streams the elements of a JSON array that may be larger than memory."""

import codecs
import json
import re
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from causalneg.errors import UserError

_CHUNK = 1 << 20
_ELEMENT_CHARACTERS = 64 << 20
_VISIBLE = re.compile(r"[^ \t\r\n]")


class _Scanner:
    """Takes an array apart; holds no more of the file than one element needs."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file, self._where = file, where
        self._json, self._utf8 = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._position, self._ended = "", 0, False
        self.elements = 0

    def fail(self, why: str) -> UserError:
        return UserError(
            f"{self._where}, after row {self.elements}: not a valid JSON array ({why}); mend it or convert it to JSONL."
        )

    def _more(self, size: int) -> None:
        chunk = self._file.read(size)
        self._ended = not chunk
        try:
            self._text, self._position = self._text[self._position :] + self._utf8.decode(chunk, self._ended), 0
        except UnicodeDecodeError as error:
            raise self.fail("the text is not UTF-8") from error

    def next_character(self) -> str:
        """Return the next character that is no space, without taking it; nothing at the end."""
        while True:
            if found := _VISIBLE.search(self._text, self._position):
                self._position = found.start()
                return found.group()
            self._position = len(self._text)
            if self._ended:
                return ""
            self._more(_CHUNK)

    def take(self, expected: str) -> str:
        """Take the next character, which must be one of those expected."""
        found = self.next_character()
        if not found or found not in expected:
            raise self.fail(f"{' or '.join(expected)} is missing")
        self._position += 1
        return found

    def element(self) -> Any:  # noqa: ANN401 - any JSON
        """Take the next element, reading on as long as it is not whole."""
        self.next_character()
        size = _CHUNK
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._position)
                if end < len(self._text) or self._ended:  # otherwise a number might go on
                    self._position, self.elements = end, self.elements + 1
                    return value
            except RecursionError as error:
                raise self.fail("nested too deeply") from error
            except ValueError as error:
                if self._ended or len(self._text) - self._position > _ELEMENT_CHARACTERS:
                    raise self.fail(getattr(error, "msg", str(error))) from error
            self._more(size)
            size *= 2  # so that a long element is not tried again and again

    def enter(self, member: str) -> None:
        """Take what comes before the value of an object's member."""
        self.take("{")
        while self.element() != member:
            self.take(":")
            self.element()
            if self.take(",}") == "}":
                raise self.fail(f"there is no {member!r}")
        self.take(":")
        self.elements = 0

    def member_of_rows(self, names: Collection[str]) -> str | None:
        """Return the first of an object's members with one of some names that holds an array of objects."""
        self.take("{")
        while True:
            name = self.element()
            self.take(":")
            if name in names and self.next_character() == "[":
                self.take("[")
                return str(name) if self.next_character() == "{" else None
            self.element()
            if self.take(",}") == "}":
                return None


def array_member(file: BinaryIO, where: str, names: Collection[str]) -> str | None:
    """Return the member, of the object that a file begins with, that holds rows; None if there is none.

    Args:
        file: is read up to that member.
        where: how it is named to the user.
        names: of the members that may hold rows.
    """
    try:
        return _Scanner(file, where).member_of_rows(names)
    except UserError:  # no object, or a damaged one: whoever reads it line by line says where
        return None


def array_elements(file: BinaryIO, where: str, member: str | None = None) -> Iterator[Any]:
    """Stream the elements of the array that a file holds, or that is the named member of the object it holds.

    Raises:
        UserError: the array is broken; what follows the fault cannot be told apart, so none of it is read.
    """
    scanner = _Scanner(file, where)
    if member is not None:
        scanner.enter(member)
    scanner.take("[")
    if scanner.next_character() == "]":
        scanner.take("]")
    else:
        yield scanner.element()
        while scanner.take(",]") == ",":
            yield scanner.element()
    if member is None and scanner.next_character():
        raise scanner.fail("something follows the closing bracket")
