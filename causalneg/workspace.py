"""Where the files of a run lie: layout, atomic writes, and the manifests that say which stages are done."""

import hashlib
import io
import posixpath
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ValidationError, model_validator

from causalneg import __version__
from causalneg.config import Settings
from causalneg.errors import UserError
from causalneg.files import file_sha256, write_whole
from causalneg.records import Passage, Qrel, Row, arrow_schema, content_id, from_table, to_table

Stage = Literal["import", "mine", "relabel", "generate", "train", "index", "evaluate"]

# Which folders a stage owns: it alone writes them, and a new run of it empties them. Index versions stay.
FOLDERS: dict[Stage, tuple[str, ...]] = {
    "import": ("corpus", "queries", "qrels", "rejected", "staging"),
    "mine": ("mined",),
    "relabel": ("relabelled", "relabel_failures"),
    "generate": ("analyses", "negatives", "failures", "outcomes"),
    "train": ("model", "training", "checkpoints"),
    "index": (),
    "evaluate": ("runs", "report"),
}

# Written by train: the ids of the queries that it held out, in the column `query_id`.
HELD_OUT = "training/held_out.parquet"

PART_ROWS = 10_000


class Counts(BaseModel):
    """Rows of a stage. Every input row is accepted, rejected or failed.

    Raises:
        ValueError: the parts do not add up.
    """

    rows_in: int
    accepted: int
    rejected: int = 0
    failed: int = 0

    @model_validator(mode="after")
    def _adds_up(self) -> "Counts":
        if self.rows_in != self.accepted + self.rejected + self.failed:
            raise ValueError(f"rows do not add up: {self}")
        return self


class FileEntry(BaseModel):
    """A file of a finished stage."""

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a finished stage did. Written last: a stage with a manifest is done."""

    stage: Stage
    key: str
    version: str
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: Counts
    tokens: dict[str, int] = {}
    details: dict[str, Any] = {}
    seconds: float
    finished: str
    files: dict[str, FileEntry]

    @property
    def digest(self) -> str:
        """Hash of what the stage made, by which later stages notice a change."""
        return content_id(self.key, {name: entry.sha256 for name, entry in self.files.items()})


def _started(stage: Stage) -> str:
    """Return the file that holds the key of a stage that was started and has not finished."""
    return f"manifests/{stage}.started"


@dataclass
class StageRun:
    """A stage at work: `done` holds its manifest when there is nothing to do."""

    workspace: "Workspace"
    stage: Stage
    key: str
    config: dict[str, Any]
    inputs: dict[str, str]
    done: Manifest | None
    resumed: bool
    started: float = field(default_factory=time.time)

    def finish(
        self,
        counts: Counts,
        tokens: Mapping[str, int] | None = None,
        details: Mapping[str, Any] | None = None,
        folders: Iterable[str] | None = None,
    ) -> Manifest:
        """Write the stage's manifest, with the checksums of its files, and return it."""
        workspace = self.workspace
        files = workspace.list_files(FOLDERS[self.stage] if folders is None else folders)
        manifest = Manifest(
            stage=self.stage,
            key=self.key,
            version=__version__,
            config=self.config,
            inputs=self.inputs,
            counts=counts,
            tokens=dict(tokens or {}),
            details=dict(details or {}),
            seconds=round(time.time() - self.started, 2),
            finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            files={name: workspace.checksum(name) for name in files},
        )
        workspace.write_bytes(f"manifests/{self.stage}.json", manifest.model_dump_json(indent=1).encode())
        workspace.remove(_started(self.stage))
        return manifest


class Workspace:
    """A folder, on this machine or in an object store, that holds everything of a run.

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
        """Return the path of something in the workspace, as its file system writes it."""
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
        """Return the files below folders, relative to the workspace, sorted; hidden ones are left out."""
        names = []
        for folder in folders:
            if self.exists(folder):
                names += [posixpath.relpath(str(p), self.root) for p in self.fs.find(self.path(folder))]
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

        Last columns that an earlier version did not write yet are filled where the rows may go without.

        Raises:
            UserError: a file has other columns.
        """
        names = arrow_schema(record).names
        for name in self.list_files([folder], ".parquet"):
            with self.open_parquet(name) as parquet:
                there = parquet.schema_arrow.names
                lacking = names[len(there) :]
                if [*there, *lacking] != names or any(record.model_fields[n].default != "" for n in lacking):
                    raise UserError(
                        f"{self.path(name)} was written by another version of causalneg; run its stage again."
                    )
                for batch in parquet.iter_batches(batch_size=PART_ROWS):
                    for column in lacking:
                        batch = batch.append_column(column, pa.repeat("", batch.num_rows))
                    yield batch

    def read_file(self, relative: str, record: type[Row]) -> list[Row]:
        """Read the rows of one Parquet file."""
        return from_table(record, self.read_table(relative))

    def read_rows(self, folder: str, record: type[Row]) -> Iterator[Row]:
        """Stream a folder's rows, in the order of the files' names."""
        for batch in self.read_batches(folder, record):
            yield from from_table(record, batch)

    def passages(self, ids: set[str]) -> dict[str, Passage]:
        """Return the passages with these ids, reading the corpus as a stream."""
        found: dict[str, Passage] = {}
        wanted = pa.array(sorted(ids), pa.string())
        for batch in self.read_batches("corpus", Passage):
            mask = pc.is_in(batch.column("id"), value_set=wanted)
            for passage in from_table(Passage, batch.filter(mask)):
                found[passage.id] = passage
        return found

    def positives(self, split: str) -> dict[str, list[str]]:
        """Return the ids of the positives of each query of a split, both in the order of import."""
        positives: dict[str, list[str]] = {}
        for qrel in self.read_rows("qrels", Qrel):
            if qrel.split == split and qrel.score > 0:
                positives.setdefault(qrel.query_id, []).append(qrel.passage_id)
        return positives

    # Stages

    def manifest(self, stage: Stage) -> Manifest | None:
        """Return the manifest of a finished stage, or None."""
        name = f"manifests/{stage}.json"
        if not self.exists(name):
            return None
        try:
            return Manifest.model_validate_json(self.read_bytes(name))
        except ValidationError as error:
            raise UserError(f"{self.path(name)} is damaged; remove it and run `causalneg {stage}` again.") from error

    def require(self, stage: Stage) -> Manifest:
        """Return the manifest of a stage that must be done.

        Raises:
            UserError: it is not.
        """
        manifest = self.manifest(stage)
        if manifest is None:
            raise UserError(f"The workspace {self.root_url} has no finished {stage}; run `causalneg {stage}` first.")
        return manifest

    def begin(
        self,
        stage: Stage,
        settings: Mapping[str, Any],
        inputs: Iterable[Stage],
        check: Callable[[], None] | None = None,
    ) -> StageRun:
        """Start a stage, resume it, or find that it is done.

        It is done when its manifest was made with the same settings from the same inputs and its files
        are there. It is resumed when an unfinished run of the same settings and inputs left work behind;
        anything else is removed.

        Args:
            stage: which stage.
            settings: everything that determines the stage's result.
            inputs: stages whose results it reads; each must be done.
            check: called when there is work to do, before anything is removed; may raise UserError.
        """
        config = {k: v.model_dump(mode="json") if isinstance(v, Settings) else v for k, v in settings.items()}
        digests: dict[str, str] = {name: self.require(name).digest for name in inputs}
        key = content_id(stage, __version__, config, digests)
        manifest, started = self.manifest(stage), _started(stage)
        if manifest and manifest.key == key and all(self.exists(name) for name in manifest.files):
            return StageRun(self, stage, key, config, digests, manifest, resumed=False)
        if check:
            check()
        resumed = self.exists(started) and self.read_bytes(started) == key.encode()
        if not resumed:
            self.remove(f"manifests/{stage}.json")
            for folder in FOLDERS[stage]:
                self.remove(folder)
            self.write_bytes(started, key.encode())
        return StageRun(self, stage, key, config, digests, None, resumed)
