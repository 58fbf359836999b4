"""A data set's folder, or the one inside a zip: which files it has, and how they are opened."""

import os
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from causalneg.errors import UserError
from causalneg.sources.contents import COMPRESSIONS
from causalneg.sources.opening import Counted, Tally, opened, plain_name, reading, unpacked

_FILES = 10_000  # of a folder that are looked at to name those not read
_SYSTEM = "__MACOSX"


def is_hidden(name: str) -> bool:
    """Whether a path within a data set is none of its files: its own name or that of a folder begins with a dot."""
    return any(part.startswith(".") or part == _SYSTEM for part in PurePosixPath(name).parts)


def files_below(folder: Path) -> Iterator[str]:
    """Yield the files below a folder that are not hidden, as paths within it, folder by folder, the first 10,000."""
    return islice(_walk(folder), _FILES)


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        inside = PurePosixPath(Path(parent).relative_to(folder).as_posix())
        yield from (str(inside / name) for name in sorted(names) if not is_hidden(name))


def variants(names: Iterable[str]) -> list[str]:
    """Return names, each followed by itself with the suffix of each compression."""
    return [name + suffix for name in names for suffix in ("", *COMPRESSIONS)]


class Folder:
    """A folder, or the one folder inside a zip, whose files are read as streams.

    Args:
        path: the folder or zip.
        landmarks: names of files of which one lies in that folder; the uppermost folder without.

    Raises:
        UserError: there is nothing there, or the zip is broken.
    """

    def __init__(self, path: Path, landmarks: Collection[str] = ()) -> None:
        self.path, self.tally = path, Tally()
        self._zip: zipfile.ZipFile | None = None
        self._prefix = ""
        if path.is_dir():
            return
        try:
            self._zip = zipfile.ZipFile(Counted(path, self.tally))
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise UserError(f"{path} is neither a folder nor a whole zip file.") from error
        found = [name for name in self.all_files() if PurePosixPath(name).name in landmarks]
        if found:
            nearest = min(found, key=lambda name: name.count("/"))  # the first of those that lie highest
            self._prefix = nearest.removesuffix(PurePosixPath(nearest).name)

    def where(self, name: str) -> str:
        """Return how a file is named to the user."""
        return str(self.path / (self._prefix + name))

    @property
    def is_zip(self) -> bool:
        """Whether it is inside a zip."""
        return self._zip is not None

    def all_files(self) -> list[str]:
        """Return the files of the whole folder or zip that are not hidden; of a folder the first 10,000."""
        if self._zip is None:
            return list(files_below(self.path))
        return [name for name in self._zip.namelist() if not name.endswith("/") and not is_hidden(name)]

    def unread(self, read: Iterable[str]) -> list[str]:
        """Return the files, of all there are, that are not among those read."""
        taken = {self._prefix + name for name in read}
        return [name for name in self.all_files() if name not in taken]

    def files(self, folder: str) -> list[str]:
        """Return the names of the files directly in a sub-folder, sorted; those that are hidden are left out."""
        if self._zip is None:
            names = [p.name for p in (self.path / folder).glob("*") if p.is_file()]
        else:
            start = self._prefix + folder + "/"
            names = [n.removeprefix(start) for n in self._zip.namelist() if n.startswith(start)]
        return sorted(f"{folder}/{n}" for n in names if n and "/" not in n and not is_hidden(n))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).is_file() if self._zip is None else self._prefix + name in self._zip.namelist()

    def find(self, names: Iterable[str]) -> str | None:
        """Return the first of some names that there is a file of."""
        return next((name for name in names if self.has(name)), None)

    def size(self, name: str) -> int:
        """Return the bytes of a file, as they are packed in a zip."""
        if self._zip is None:
            return (self.path / name).stat().st_size
        return self._zip.getinfo(self._prefix + name).compress_size

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading, unpacked where it is compressed.

        Raises:
            UserError: it is missing or damaged.
        """
        where = self.where(name)
        if self._zip is None:
            with opened(self.path / name, self.tally) as file:
                yield file
            return
        try:
            member = self._zip.open(self._prefix + name)
        except (KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, OSError, ValueError) as error:
            raise UserError(f"{where} cannot be unpacked ({error}); zip it anew.") from error
        with reading(where), member, unpacked(member, where) as file:
            yield file


def split_of(name: str) -> str:
    """Return the split that a file of judgements is named after: `test` of `qrels/test.tsv.gz`."""
    return PurePosixPath(plain_name(name)).stem
