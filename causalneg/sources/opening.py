"""Opens the files of a data set, plain, compressed or zipped, counts the bytes read, and reads bounded lines."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from causalneg.errors import UserError
from causalneg.files import file_sha256

LINE_BYTES = 64 << 20
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_BUFFER = 1 << 20


class Tally:
    """Bytes read so far, of all files of a data set together."""

    def __init__(self) -> None:
        self.bytes = 0


class _Counted(io.FileIO):
    """A file that adds what is read to a tally."""

    def __init__(self, path: Path, tally: Tally) -> None:
        super().__init__(path)
        self._tally = tally

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        count = super().readinto(buffer) or 0
        self._tally.bytes += count
        return count

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        self._tally.bytes += len(data)
        return data


def plain_suffix(path: Path) -> str:
    """Return a file's suffix in small letters, that of a compression left out: `.jsonl` of `a.jsonl.gz`."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def digest_of(files: list[Path]) -> str:
    """Return what changes when one of the files changes: names and checksums."""
    return " ".join(f"{p.name}:{file_sha256(p)[:16]}" for p in files)


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Let what goes wrong with a file, not with a row of it, be told to the user."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, pa.ArrowException) as error:
        # RuntimeError of an encrypted zip is met where its member is opened.
        message = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{where} cannot be read ({' '.join(message.split())}); is the file whole?") from error


@contextmanager
def opened(path: Path, tally: Tally) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if its name ends in `.gz` or `.zst`.

    Raises:
        UserError: it is missing, damaged, or cannot be read; also for damage met later.
    """
    compression = COMPRESSIONS.get(path.suffix.lower())
    with reading(str(path)), _Counted(path, tally) as raw:
        if compression is None:
            yield io.BufferedReader(raw, _BUFFER)
            return
        with pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression) as stream:
            yield io.BufferedReader(stream, _BUFFER)


class Folder:
    """A folder, or the one folder inside a zip, whose files are read as streams.

    Args:
        path: the folder or zip.
        landmark: name of a file that lies in that folder.

    Raises:
        UserError: there is nothing there, or the zip is broken.
    """

    def __init__(self, path: Path, landmark: str) -> None:
        self.path, self.tally = path, Tally()
        self._zip: zipfile.ZipFile | None = None
        self._prefix = ""
        if path.is_dir():
            return
        try:
            self._zip = zipfile.ZipFile(_Counted(path, self.tally))
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise UserError(f"{path} is neither a folder nor a whole zip file.") from error
        members = self._zip.namelist()
        found = [m for m in members if m == landmark or m.endswith("/" + landmark)]
        if found:
            self._prefix = found[0].removesuffix(landmark)

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

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).is_file() if self._zip is None else self._prefix + name in self._zip.namelist()

    def size(self, name: str) -> int:
        """Return the bytes of a file, as they are packed in a zip; 0 where there is none."""
        if not self.has(name):
            return 0
        if self._zip is None:
            return (self.path / name).stat().st_size
        return self._zip.getinfo(self._prefix + name).compress_size

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading.

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
        with reading(where), member:
            yield io.BufferedReader(cast(io.BufferedIOBase, member), _BUFFER)


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Stream lines, numbered from 1, without a byte order mark; a line over 64 MiB is None and never in memory."""
    number = 0
    while raw := file.readline(LINE_BYTES):
        number += 1
        if len(raw) == LINE_BYTES and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(_BUFFER)
            yield number, None
        else:
            yield number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
