"""Files, tables and rows below a path, on this machine or in an object store; a file is there whole or not at all."""

import hashlib
import io
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from causalneg.errors import UserError
from causalneg.files import file_sha256, write_whole
from causalneg.manifest import FileEntry
from causalneg.records import Row, arrow_schema, from_table, to_table

PART_ROWS = 10_000


class Storage:
    """A folder that holds files.

    Args:
        root: path or fsspec URL.

    Raises:
        UserError: nothing here can open such a URL.
    """

    def __init__(self, root: str) -> None:
        self.root_url = root
        try:
            self.fs, path = fsspec.core.url_to_fs(root)
        except (ValueError, ImportError) as error:  # unknown protocol, or its package is missing
            raise UserError(f"The workspace {root!r} cannot be opened: {error}.") from error
        self.root = str(path).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the workspace is a folder on this machine."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, *parts: str) -> str:
        """Return the path of something in the folder, as its file system writes it."""
        return posixpath.join(self.root, *parts)

    def local_folder(self, relative: str) -> Path:
        """Return a folder as a path on this machine.

        Raises:
            UserError: the workspace is not on this machine.
        """
        if not self.is_local:
            raise UserError(f"{relative} must be in a local folder, but the workspace is {self.root_url}.")
        return Path(self.path(relative))

    def exists(self, relative: str) -> bool:
        """Whether a file or folder exists."""
        return bool(self.fs.exists(self.path(relative)))

    def read_bytes(self, relative: str) -> bytes:
        """Read a whole file."""
        return bytes(self.fs.cat_file(self.path(relative)))

    def write_bytes(self, relative: str, data: bytes) -> None:
        """Write a file so that it is there as a whole or not at all."""
        target = self.path(relative)
        if not self.is_local:
            self.fs.pipe_file(target, data)
            return
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)

    def remove(self, relative: str) -> None:
        """Remove a file or folder if it is there."""
        if self.exists(relative):
            self.fs.rm(self.path(relative), recursive=True)

    def list_files(self, folders: Iterable[str], suffix: str = "") -> list[str]:
        """Return the files below folders, by path within the workspace, sorted; hidden ones are left out."""
        names = []
        for folder in folders:
            if self.exists(folder):
                base = self.path(folder)
                names += [posixpath.join(folder, posixpath.relpath(str(p), base)) for p in self.fs.find(base)]
        return sorted(n for n in names if n.endswith(suffix) and not posixpath.basename(n).startswith("."))

    def checksum(self, relative: str) -> FileEntry:
        """Return size and SHA-256 of a file."""
        if self.is_local:
            path = Path(self.path(relative))
            return FileEntry(bytes=path.stat().st_size, sha256=file_sha256(path))
        data = self.read_bytes(relative)
        return FileEntry(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    # Rows

    def write_rows(self, folder: str, name: str, record: type[Row], rows: Iterable[Row]) -> int:
        """Write rows as one Parquet file `<folder>/<name>.parquet`, atomically; return how many."""
        return self.write_table(f"{folder}/{name}.parquet", to_table(record, rows))

    def write_table(self, relative: str, table: pa.Table) -> int:
        """Write an Arrow table as one Parquet file, atomically; return how many rows."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.write_bytes(relative, sink.getvalue().to_pybytes())
        return int(table.num_rows)

    def read_table(self, relative: str, columns: list[str] | None = None) -> pa.Table:
        """Read a Parquet file, all of it or some columns."""
        with self.open_parquet(relative) as file:
            return file.read(columns)

    def open_parquet(self, relative: str) -> pq.ParquetFile:
        """Open a Parquet file.

        Never through a file object of Python's: Arrow's threads would call into Python, and where one of them still
        does so while the process ends, the process is aborted.
        """
        return pq.ParquetFile(self.path(relative) if self.is_local else pa.BufferReader(self.read_bytes(relative)))

    def write_array(self, relative: str, array: np.ndarray) -> None:
        """Write an array as one `.npy` file, atomically."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        self.write_bytes(relative, buffer.getvalue())

    def read_array(self, relative: str) -> np.ndarray:
        """Read a `.npy` file; one that holds pickled objects is refused."""
        return np.asarray(np.load(io.BytesIO(self.read_bytes(relative)), allow_pickle=False))

    def column(self, folder: str, name: str) -> pa.ChunkedArray:
        """Return one column of a folder's rows, in the order of the files' names."""
        return pa.chunked_array(
            [c for n in self.list_files([folder], ".parquet") for c in self.read_table(n, [name]).column(name).chunks],
            pa.string(),
        )

    def read_batches(self, folder: str, record: type[Row]) -> Iterator[pa.RecordBatch]:
        """Stream a folder's Parquet files as Arrow batches, in the order of their names.

        Last columns that an earlier version did not write yet are filled with their defaults, where they have one.

        Raises:
            UserError: a file has other columns.
        """
        schema = arrow_schema(record)
        names = schema.names
        for name in self.list_files([folder], ".parquet"):
            with self.open_parquet(name) as parquet:
                there = parquet.schema_arrow.names
                lacking = names[len(there) :]
                if [*there, *lacking] != names or any(record.model_fields[n].is_required() for n in lacking):
                    raise UserError(
                        f"{self.path(name)} was written by another version of causalneg; run its stage again."
                    )
                for batch in parquet.iter_batches(batch_size=PART_ROWS):
                    for column in lacking:
                        values = [record.model_fields[column].default] * batch.num_rows
                        batch = batch.append_column(column, pa.array(values, schema.field(column).type))
                    yield batch

    def read_file(self, relative: str, record: type[Row]) -> list[Row]:
        """Read the rows of one Parquet file."""
        return from_table(record, self.read_table(relative))

    def read_rows(self, folder: str, record: type[Row]) -> Iterator[Row]:
        """Stream a folder's rows, in the order of the files' names."""
        for batch in self.read_batches(folder, record):
            yield from from_table(record, batch)
