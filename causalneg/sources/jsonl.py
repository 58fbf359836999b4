"""Reads lines of JSON from files and zip members; a broken line is named by file and number."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from causalneg.errors import UserError


class Folder:
    """A folder, or the one folder inside a zip, whose files are read as streams.

    Args:
        path: the folder or zip.

    Raises:
        UserError: there is nothing there, or the zip is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._prefix = ""
        if path.is_dir():
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path} is neither a folder nor a whole zip file.") from error
        members = self._zip.namelist()
        corpora = [m for m in members if m == "corpus.jsonl" or m.endswith("/corpus.jsonl")]
        if corpora:
            self._prefix = corpora[0].removesuffix("corpus.jsonl")

    def where(self, name: str) -> str:
        """Return how a file is named to the user."""
        return str(self.path / (self._prefix + name))

    def files(self, folder: str, suffix: str) -> list[str]:
        """Return the names of the files directly in a sub-folder, sorted."""
        if self._zip is None:
            return sorted(f"{folder}/{p.name}" for p in (self.path / folder).glob(f"*{suffix}"))
        start = self._prefix + folder + "/"
        names = [n.removeprefix(self._prefix) for n in self._zip.namelist() if n.startswith(start)]
        return sorted(n for n in names if n.endswith(suffix) and n.count("/") == 1)

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Stream a file's lines, numbered from 1, empty ones left out.

        Raises:
            UserError: the file is missing or not UTF-8.
        """
        try:
            file: Any = (self.path / name).open("rb") if self._zip is None else self._zip.open(self._prefix + name)
        except (KeyError, OSError) as error:
            raise UserError(f"{self.where(name)} does not exist; a BEIR folder needs it.") from error
        except (RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.where(name)} cannot be unpacked ({error}); zip it anew.") from error
        with file:
            yield from numbered_lines(file, self.where(name))


def numbered_lines(file: BinaryIO, where: str) -> Iterator[tuple[int, str]]:
    """Stream the lines of an open binary file, numbered from 1, empty ones left out."""
    number = 0
    try:
        for number, raw in enumerate(file, 1):
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            if line.strip():
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}, line {number}: the text is not UTF-8; convert the file.") from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise UserError(f"{where}, after line {number}: the file cannot be read ({error}).") from error


def parse_object(line: str, where: str, number: int) -> dict[str, Any]:
    """Parse one line as a JSON object.

    Raises:
        UserError: it is none.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", str(error))
        raise UserError(f"{where}, line {number}: not valid JSON ({why}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}, line {number}: a JSON object is needed, not a {type(value).__name__}.")
    return value


def unique_id(row: dict[str, Any], seen: set[str], where: str, number: int) -> str:
    """Return a row's `_id` and add it to those seen.

    Raises:
        UserError: it is missing, or an earlier row has it.
    """
    value = text_field(row, "_id", where, number)
    if value in seen:
        raise UserError(
            f"{where}, line {number}: the _id {value!r} stands on an earlier line, too; ids must be unique."
        )
    seen.add(value)
    return value


def text_field(row: dict[str, Any], field: str, where: str, number: int, default: str | None = None) -> str:
    """Return a text field of a row; ids may also be numbers.

    Raises:
        UserError: it is missing, empty, or no text, and there is no default.
    """
    value = row.get(field)
    value = default if value is None else value
    if isinstance(value, int) and not isinstance(value, bool) and field.endswith("id"):
        value = str(value)
    if isinstance(value, str) and (value.strip() or default is not None):
        # A lone surrogate is no text: it cannot be stored or tokenised.
        return value.encode("utf-8", "replace").decode()
    state = "missing" if value is None else "empty" if value == "" else "no text"
    raise UserError(f"{where}, line {number}: field {field!r} is {state}; give each row a text there.")
