"""The changes made to the passages since the corpus was indexed: a file that only grows, read by every replica.

`changes.jsonl` holds a line for each request, with all its changes, so that a request is there as a whole or not at
all, and ends in a checksum. Changes are numbered from 1, across all index versions.
"""

import base64
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

import numpy as np
import xxhash
from pydantic import ValidationError, model_validator

from causalneg.errors import UserError
from causalneg.files import locked, sync
from causalneg.records import Passage, Record

CHANGES = "changes.jsonl"
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class StorageFull(Exception):  # noqa: N818 - said as it is
    """The changes do not fit on the disk; none of them was made."""


class StorageFailed(Exception):  # noqa: N818 - said as it is
    """The log cannot be written; none of the changes was made."""


class Change(Record):
    """A passage put in, in the place of any with its id, or taken away.

    Attributes:
        number: its place among all changes, from 1; 0 until the log gives it one.
        model: fingerprint of the encoder that made the vector.
        vector: base64 of float32, little-endian, `[dimension]`; empty for what is taken away.

    Raises:
        ValueError: the vector of what is put in is missing, not finite, or has length 0.
    """

    number: int = 0
    kind: Literal["upsert", "delete"]
    id: str
    title: str = ""
    text: str = ""
    metadata: str = ""
    model: str = ""
    vector: str = ""

    @classmethod
    def upsert(cls, passage: Passage, model: str, vector: np.ndarray) -> Self:
        """Return the change that puts a passage in.

        Args:
            passage: what to put in.
            model: fingerprint of the encoder.
            vector: `[dimension]`.

        Raises:
            ValueError: the vector is not finite or has length 0.
        """
        encoded = base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
        return cls(kind="upsert", **passage.model_dump(), model=model, vector=encoded)

    @classmethod
    def delete(cls, passage_id: str) -> Self:
        """Return the change that takes a passage away; it need not be there."""
        return cls(kind="delete", id=passage_id)

    @model_validator(mode="after")
    def _has_a_vector(self) -> Self:
        if self.kind == "upsert":
            values = self.array()
            if not np.isfinite(values).all() or not np.any(values):
                raise ValueError(f"the vector of {self.id!r} is empty, zero or not finite")
        return self

    def array(self) -> np.ndarray:
        """Return the vector, float32 `[dimension]`."""
        return np.frombuffer(base64.b64decode(self.vector, validate=True), dtype="<f4")

    @property
    def passage(self) -> Passage:
        """The passage that is put in."""
        return Passage(id=self.id, title=self.title, text=self.text, metadata=self.metadata)


def latest(changes: Iterable[Change]) -> list[Change]:
    """Return the last change of each id, in the order of their numbers: what the others did is undone by it."""
    last: dict[str, Change] = {}
    for change in sorted(changes, key=lambda c: c.number):
        last.pop(change.id, None)  # so that the id stands where its last change does
        last[change.id] = change
    return list(last.values())


class _Line(Record):
    """The changes of one request; the checksum is that of the line up to it."""

    changes: list[Change]
    checksum: str


_CHECKSUM = b',"checksum":"'
_TAIL = len(_CHECKSUM) + 16 + len(b'"}\n')


def _checksum(body: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(body).encode()


def _line(changes: Sequence[Change]) -> bytes:
    """Return the line of a request, which may hold no line break but its last sign."""
    body = b'{"changes":[' + b",".join(c.model_dump_json(exclude_defaults=True).encode() for c in changes) + b"]"
    return body + _CHECKSUM + _checksum(body) + b'"}\n'


class ChangeReader:
    """Reads the log from where it stands; of use to one thread at a time.

    Args:
        path: the log; it may not be there yet.
        after: number of the last change that is known already.
    """

    def __init__(self, path: Path, after: int = 0) -> None:
        self.path, self.offset, self.last = path, 0, 0
        self._name, self._after, self._lines = str(path), after, 0
        self._seen = (0, 0)  # what the file was like when it was read last

    def has_more(self) -> bool:
        """Whether the log was written to since it was read last; one stat, from any thread."""
        return self._stat() != self._seen

    def _stat(self) -> tuple[int, int]:
        """Return the size and the time of the last write: a torn tail may give way to a line of its size."""
        try:
            found = os.stat(self._name)  # noqa: PTH116 - before every search: half the time of Path's
        except FileNotFoundError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def poll(self) -> list[Change]:
        """Return the changes made since the last call, a request's as a whole; costs one stat where there are none.

        Where it raises, nothing counts as read.

        Raises:
            UserError: a line is damaged, or the log is shorter than it was, or cannot be read.
        """
        self._seen = self._stat()
        size = self._seen[0]
        if size == self.offset:
            return []
        if size < self.offset:
            raise UserError(f"{self.path} is shorter than it was; put the whole file back and start the server again.")
        before = self.offset, self._lines, self.last
        try:
            return [change for changes in self._new() for change in changes if change.number > self._after]
        except (UserError, OSError) as error:
            self.offset, self._lines, self.last = before  # what stands before the damage is read with what is healed
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{self.path} cannot be read: {error.strerror}; make it readable, or put a whole copy back."
            ) from error

    def _new(self) -> Iterator[list[Change]]:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for raw in file:
                if not raw.endswith(b"\n"):  # being written, or left by a writer that was killed
                    return
                changes = self._read(raw)
                self.offset, self._lines, self.last = self.offset + len(raw), self._lines + 1, changes[-1].number
                yield changes

    def _read(self, raw: bytes) -> list[Change]:
        body = raw[:-_TAIL]
        if raw[-_TAIL:] != _CHECKSUM + _checksum(body) + b'"}\n':
            raise self._damaged("does not have its checksum")
        try:
            changes = _Line.model_validate_json(raw).changes
        except ValidationError as error:
            raise self._damaged("holds no changes") from error
        if [c.number for c in changes] != list(range(self.last + 1, self.last + 1 + len(changes))) or not changes:
            raise self._damaged(f"does not go on from change {self.last}")
        return changes

    def _damaged(self, what: str) -> UserError:
        return UserError(
            f"{self.path}, line {self._lines + 1} {what}; put a whole copy of the file back, "
            "or cut it before that line, which loses the changes from there on."
        )


class ChangeLog:
    """The log; any number of processes and threads may write it.

    Args:
        path: the file; its folder must be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = ChangeReader(path)  # read and moved by whoever holds the lock
        self._refused = 0  # bytes that could not be written last

    def reader(self, after: int = 0) -> ChangeReader:
        """Return a reader of the changes after that number."""
        return ChangeReader(self.path, after)

    def append(self, changes: Iterable[Change]) -> int:
        """Make changes, all of them or none; they are on the disk when this returns.

        Returns:
            The number of the last one.

        Raises:
            StorageFull: they do not fit on the disk.
            StorageFailed: it cannot be written.
            UserError: the log is damaged.
        """
        asked = list(changes)
        with self._writing() as file:
            if not asked:
                return self._end.last
            first = self._end.last + 1
            numbered = [change.model_copy(update={"number": first + n}) for n, change in enumerate(asked)]
            self._write(file, _line(numbered))
            if first == 1:
                sync(self.path.parent)
            self._end.poll()
            self._refused = 0
            return self._end.last

    def check(self) -> None:
        """Make sure that changes can be made, those that were refused last as well, by writing as much for a moment.

        Raises:
            StorageFull, StorageFailed, UserError: as `append`.
        """
        with self._writing() as file:
            self._write(file, b" " * max(1, self._refused))
            os.ftruncate(file, self._end.offset)

    @contextmanager
    def _writing(self) -> Iterator[int]:
        """Have the log to oneself, open and without what a killed writer left."""
        try:
            with locked(self.path) as file:
                self._end.poll()
                os.ftruncate(file, self._end.offset)
                yield file
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFull(f"{self.path} cannot grow: {error.strerror}; make room on its disk.") from error
            raise StorageFailed(f"{self.path} cannot be written: {error.strerror}; make it writable.") from error

    def _write(self, file: int, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(file, line[written:], self._end.offset + written)
            os.fsync(file)
        except OSError:
            self._refused = len(line)
            os.ftruncate(file, self._end.offset)
            raise
