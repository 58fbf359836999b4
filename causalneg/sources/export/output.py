"""The folder that an export writes: checked first, written under another name, and put in place as a whole."""

import hashlib
import json
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel

from causalneg.errors import UserError
from causalneg.manifest import Counts, FileEntry
from causalneg.sources.export.format import FileType

# YAML, since loaders that are given a folder take every .json in it for data.
MANIFEST = "export.yaml"
_READ_BYTES = 1 << 20


class ExportManifest(BaseModel):
    """What an export holds; it stands beside the data and marks the folder as ours."""

    made_by: Literal["causalneg export"] = "causalneg export"
    version: str
    workspace: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    counts: Counts
    left_out: dict[str, int]
    rows: int
    negatives: dict[str, int]
    false_negatives: dict[str, int] = {}
    finished: str
    files: dict[str, FileEntry]


@contextmanager
def _writing(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"The output {url} cannot be written ({error.strerror or error}).") from error


class Writer:
    """Writes rows to an open file, as Parquet where there is a schema, otherwise as JSON lines.

    Raises:
        UserError: the disk is full, or the folder has gone.
    """

    def __init__(self, file: IO[bytes], schema: pa.Schema | None, url: str) -> None:
        self._file, self._schema, self._url = file, schema, url
        self._parquet = pq.ParquetWriter(file, schema, compression="zstd") if schema is not None else None
        self.rows = 0

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write some rows."""
        self.rows += len(rows)
        with _writing(self._url):
            if self._parquet:
                self._parquet.write_table(pa.Table.from_pylist(rows, schema=self._schema))
            else:
                self._file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())

    def close(self) -> None:
        """Write what a file ends with, and close it."""
        with _writing(self._url):
            if self._parquet:
                self._parquet.close()
            self._file.close()


class Output:
    """A folder, on this machine or in an object store.

    Args:
        url: path or fsspec URL.

    Raises:
        UserError: nothing here can open such a URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._fs, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:  # unknown protocol, or its package is missing
            raise UserError(f"The output {url!r} cannot be opened: {error}.") from error
        self._path = str(path).rstrip("/")
        parent, name = posixpath.split(self._path)
        self._fresh = posixpath.join(parent, f".{name}.unfinished")

    def check(self) -> None:
        """Make sure that what is there may be replaced.

        Raises:
            UserError: it is a file, or a folder with anything but an earlier export.
        """
        if not self._fs.exists(self._path):
            return
        if self._fs.isfile(self._path):
            raise UserError(f"The output {self.url} is a file; name a folder with --output.")
        names = {posixpath.relpath(str(p), self._path) for p in self._fs.find(self._path, withdirs=True)}
        if foreign := sorted(names - {"."} - self._earlier_files()):
            raise UserError(
                f"The folder {self.url} holds {foreign[0]}, which no export wrote; name another one with --output."
            )

    def _earlier_files(self) -> set[str]:
        """Return the files of the export that is there; none where it is not one of ours."""
        manifest = posixpath.join(self._path, MANIFEST)
        if not self._fs.exists(manifest):
            return set()
        try:
            earlier = ExportManifest.model_validate(yaml.safe_load(self._fs.cat_file(manifest)))
        except (yaml.YAMLError, ValueError):  # pydantic's error is a ValueError
            return set()
        return {MANIFEST, *earlier.files}

    @contextmanager
    def file(self, name: str, schema: pa.Schema | None) -> Iterator[Writer]:
        """Open a new file of the export; it takes the place of the old one with `finish`."""
        with _writing(self.url):
            self.discard()
            self._fs.makedirs(self._fresh)
            file = self._fs.open(posixpath.join(self._fresh, name), "wb")
        with file:
            writer = Writer(file, schema, self.url)
            try:
                yield writer
            finally:
                writer.close()

    def entry(self, name: str) -> FileEntry:
        """Return size and SHA-256 of a file of the new export."""
        digest, size = hashlib.sha256(), 0
        with self._fs.open(posixpath.join(self._fresh, name), "rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
                size += len(chunk)
        return FileEntry(bytes=size, sha256=digest.hexdigest())

    def finish(self, manifest: ExportManifest) -> None:
        """Write the manifest and put the new export in the place of the old one."""
        text = yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        with _writing(self.url):
            self._fs.pipe_file(posixpath.join(self._fresh, MANIFEST), text.encode())
            if self._fs.exists(self._path):
                self._fs.rm(self._path, recursive=True)
            self._fs.mv(self._fresh, self._path, recursive=True)

    def discard(self) -> None:
        """Remove what an unfinished export left."""
        if self._fs.exists(self._fresh):
            self._fs.rm(self._fresh, recursive=True)


def file_name(file_type: FileType) -> str:
    """Return the name of the data file; loaders take it for the train split."""
    return f"train.{file_type}"
