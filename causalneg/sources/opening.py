"""Opens the files of a data set, plain or compressed, counts the bytes read, and reads bounded lines."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any, BinaryIO, cast

import pyarrow as pa

from causalneg.errors import UserError
from causalneg.files import file_sha256
from causalneg.sources.contents import COMPRESSIONS, HEAD_BYTES, compression_of, refuse_foreign

LINE_BYTES = 64 << 20
_BUFFER = 1 << 20


class Tally:
    """Bytes read so far, of all files of a data set together."""

    def __init__(self) -> None:
        self.bytes = 0


class Counted(io.FileIO):
    """A file that adds what is read to a tally."""

    def __init__(self, path: Path, tally: Tally) -> None:
        super().__init__(path)
        self._tally = tally

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """Read into a buffer."""
        count = super().readinto(buffer) or 0
        self._tally.bytes += count
        return count

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes, all that are left without a size."""
        data = super().read(-1 if size is None else size) or b""
        self._tally.bytes += len(data)
        return data


def plain_name(name: str) -> str:
    """Return a file's name without the suffix of a compression: `a.jsonl` of `a.jsonl.gz`."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix.lower()}" in COMPRESSIONS else name


def plain_suffix(path: Path | str) -> str:
    """Return a file's suffix in small letters, that of a compression left out: `.jsonl` of `a.jsonl.gz`."""
    return PurePath(plain_name(Path(path).name)).suffix.lower()


def existing(path: Path) -> Path:
    """Return a file's path, with the suffix of a compression where only such a one is there."""
    packed = (path.with_name(path.name + suffix) for suffix in COMPRESSIONS)
    return path if path.is_file() else next((p for p in packed if p.is_file()), path)


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
def unpacked(raw: io.RawIOBase | IO[bytes], where: str) -> Iterator[BinaryIO]:
    """Read a file's bytes, unpacked where they are compressed, whatever its name ends in.

    Raises:
        UserError: it is damaged, also for damage met later, or no data.
    """
    buffered = io.BufferedReader(cast(io.RawIOBase, raw), _BUFFER)
    with reading(where):
        compression = compression_of(buffered.peek(HEAD_BYTES)[:HEAD_BYTES], where)
        if compression is None:
            yield buffered
            return
        with pa.CompressedInputStream(pa.PythonFile(buffered, "r"), compression) as stream:
            unpacked_too = io.BufferedReader(stream, _BUFFER)
            refuse_foreign(unpacked_too.peek(HEAD_BYTES)[:HEAD_BYTES], where)
            yield unpacked_too


@contextmanager
def opened(path: Path, tally: Tally) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked where it is compressed.

    Raises:
        UserError: it is missing, damaged, no data, or cannot be read; also for damage met later.
    """
    with reading(str(path)), Counted(path, tally) as raw, unpacked(raw, str(path)) as file:
        yield file


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
