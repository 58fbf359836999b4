"""An index version opened: the checks before anything is read, its passages, and search in it.

What a version consists of stands in `manifest`. A server knows an index by this module.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg.errors import UserError
from causalneg.indexing.manifest import (
    LEXICAL,
    IndexDamaged,
    IndexManifest,
    passages_file,
    read_manifest,
    vectors_file,
    verify_files,
)
from causalneg.indexing.search import Found, LocalShard, VectorSearch
from causalneg.indexing.trial import attempt
from causalneg.records import Passage, arrow_schema, full_text


class Passages:
    """The passages of a version in the order of its rows; they stay on disk and are mapped into memory."""

    def __init__(self, batches: list[pa.RecordBatch]) -> None:
        self._batches = batches
        self._starts = list(accumulate((batch.num_rows for batch in batches), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def ids(self) -> pa.ChunkedArray:
        """The id of each row."""
        return self.column("id")

    @property
    def metadata(self) -> pa.ChunkedArray:
        """The metadata of each row, a JSON object as text, empty where there is none."""
        return self.column("metadata")

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a field of every row."""
        return pa.chunked_array([batch.column(name) for batch in self._batches], pa.string())

    def texts(self) -> Iterator[str]:
        """Stream title and text of each row."""
        for batch in self._batches:
            yield from map(full_text, batch.column("title").to_pylist(), batch.column("text").to_pylist())

    def get(self, row: int) -> Passage:
        """Return the passage of a row.

        Raises:
            IndexError: there is no such row.
        """
        batch, place = self._at(row)
        return Passage(**{name: batch.column(name)[place].as_py() for name in batch.schema.names})

    def id(self, row: int) -> str:
        """Return the id of a row.

        Raises:
            IndexError: there is no such row.
        """
        batch, place = self._at(row)
        return str(batch.column("id")[place].as_py())

    def _at(self, row: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is not among the {len(self)} rows of the index")
        at = bisect_right(self._starts, row) - 1
        return self._batches[at], row - self._starts[at]


def is_among(ids: pa.ChunkedArray, wanted: Iterable[str]) -> np.ndarray:
    """Return which rows have one of the ids, bool `[rows]`: one pass over all, which needs no table of them."""
    return np.asarray(pc.is_in(ids, value_set=pa.array(list(wanted), pa.string())).to_numpy())


class Index:
    """An opened version, all its shards; safe to search from several threads.

    Attributes:
        folder: `index/<version>`.
        manifest: what the version is.
        passages: its passages, by row.
    """

    def __init__(self, folder: Path, manifest: IndexManifest, vectors: VectorSearch, passages: Passages) -> None:
        self.folder, self.manifest, self.passages = folder, manifest, passages
        self._vectors = vectors

    @property
    def lexical_folder(self) -> Path | None:
        """The folder of the version's BM25 index, if it has one."""
        return self.folder / LEXICAL if self.manifest.lexical else None

    def search(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """Return the best rows of each vector, best first, equal scores in the order of rows.

        Args:
            vectors: float32 `[queries, dimension]`.
            k: rows per query; fewer come back when the index has fewer.
            allowed: bool `[rows]`, the rows that may be found; all when unset.

        Returns:
            scores float32 and rows int64, both `[queries, min(k, rows)]`; where fewer rows are allowed, -inf and -1.

        Raises:
            ValueError: the arrays have other shapes, a vector is not finite or of length 0, or `k` is below 1.
            IndexDamaged: the vectors cannot be searched.
        """
        return self._vectors.search(vectors, k, allowed)


OpenVectors = Callable[[Path, IndexManifest], VectorSearch]  # of the version in a folder


@lru_cache(maxsize=64)
def _tried(folder: Path, seal: str, numbers: tuple[int, ...]) -> str | None:
    """Try vectors of a version in a process of their own, once for files with the same checksums."""
    manifest = read_manifest(folder)
    files = [(vectors_file(number), manifest.shards[number].rows) for number in numbers]
    return attempt(folder, files, manifest.kind, manifest.dimension)


def open_shards(folder: Path, manifest: IndexManifest, numbers: Sequence[int]) -> list[LocalShard]:
    """Load the vectors of some shards.

    No file is read before its checksum is right, nor loaded before another process could search it.

    Raises:
        IndexDamaged: one is not as it was written.
    """
    import faiss

    verify_files(folder, manifest, map(vectors_file, numbers))
    if wrong := _tried(folder.absolute(), manifest.seal, tuple(numbers)):
        raise IndexDamaged(folder, wrong)
    indexes = [faiss.read_index(str(folder / vectors_file(number))) for number in numbers]
    return [LocalShard(index, manifest.kind, manifest.parameters, folder) for index in indexes]


def local_vectors(folder: Path, manifest: IndexManifest) -> VectorSearch:
    """Load the vectors of all shards into this process.

    Raises:
        IndexDamaged: they are not as they were written.
    """
    return VectorSearch(open_shards(folder, manifest, range(len(manifest.shards))))


def map_passages(folder: Path, shards: Sequence[int]) -> Passages:
    """Map the passages of shards of so many rows into memory.

    Raises:
        IndexDamaged: a file is no Arrow file of so many passages.
    """
    return Passages([batch for number, rows in enumerate(shards) for batch in _map_shard(folder, number, rows)])


def _map_shard(folder: Path, number: int, rows: int) -> list[pa.RecordBatch]:
    """Map a shard's passages into memory.

    Raises:
        IndexDamaged: the file is no Arrow file of so many passages.
    """
    name = passages_file(number)
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(folder / name)))
        if reader.schema != arrow_schema(Passage):
            raise IndexDamaged(folder, f"{name} does not have the columns {', '.join(arrow_schema(Passage).names)}")
        batches = [reader.get_batch(at) for at in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise IndexDamaged(folder, f"{name} is no Arrow file") from error
    there = sum(batch.num_rows for batch in batches)
    if there != rows:
        raise IndexDamaged(folder, f"{name} has {there} rows, not {rows}")
    return batches


def open_passages(folder: Path, manifest: IndexManifest) -> Passages:
    """Map a version's passages into memory, after checking all its files but the vectors.

    Raises:
        IndexDamaged: they are not as they were written.
    """
    vectors = {vectors_file(number) for number in range(len(manifest.shards))}
    verify_files(folder, manifest, [name for name in manifest.files if name not in vectors])
    return map_passages(folder, [shard.rows for shard in manifest.shards])


def open_index(folder: Path, model_fingerprint: str, open_vectors: OpenVectors = local_vectors) -> Index:
    """Open an index version for queries encoded by one model, after checking that it is whole.

    Nothing is read before its checksum is right, and no vectors before another process could search them.

    Args:
        folder: `index/<version>`.
        model_fingerprint: of the model that encodes the queries.
        open_vectors: where they lie.

    Raises:
        UserError: the index is missing, or was built with another model.
        IndexDamaged: it is not as it was written.
    """
    manifest = read_manifest(folder)
    if manifest.model.fingerprint != model_fingerprint:
        built = f"{manifest.model.name} ({manifest.model.fingerprint})"
        raise UserError(
            f"The index {folder} was built with the model {built}, but queries would be "
            f"encoded by {model_fingerprint}; run `causalneg index` again."
        )
    passages = open_passages(folder, manifest)
    return Index(folder, manifest, open_vectors(folder, manifest), passages)
