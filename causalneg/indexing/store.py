"""An index version on disk: its manifest, the checks before anything is loaded, and search in it.

    index/<version>/manifest.json     what the version is, with size and SHA-256 of the other two
                    index.faiss       vectors, in the order of the corpus
                    passages.arrow    Arrow IPC file (uncompressed) of id, title, text, in the same order

A version is never changed. It is read by the server too, which knows of an index only this module.
"""

import hashlib
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from causalneg.errors import UserError
from causalneg.files import file_sha256
from causalneg.records import Passage, Record, arrow_schema
from causalneg.workspace import FileEntry

MANIFEST, VECTORS, PASSAGES = "manifest.json", "index.faiss", "passages.arrow"


class IndexModel(Record):
    """The encoder that made an index's vectors."""

    name: str
    fingerprint: str


class IndexManifest(Record):
    """What an index version is. `seal` is a hash of all other fields: none changes unnoticed."""

    version: str
    kind: Literal["flat"]
    metric: Literal["inner_product"]
    dimension: int
    rows: int
    model: IndexModel
    files: dict[str, FileEntry]
    created: str
    seal: str = ""

    def sealed(self) -> "IndexManifest":
        """Return the manifest with the seal that belongs to it."""
        body = self.model_dump_json(exclude={"seal"})
        return self.model_copy(update={"seal": hashlib.sha256(body.encode()).hexdigest()})


class Hit(NamedTuple):
    """A passage found: its row in the index, its id, and its inner product with the query."""

    row: int
    id: str
    score: float


class Index:
    """An opened index version; passages stay on disk and are mapped into memory."""

    def __init__(self, manifest: IndexManifest, vectors: Any, batches: list[pa.RecordBatch]) -> None:  # noqa: ANN401
        self.manifest = manifest
        self._vectors = vectors
        self._columns = [{name: batch.column(name) for name in batch.schema.names} for batch in batches]
        self._starts = list(accumulate((batch.num_rows for batch in batches), initial=0))

    def search(self, vectors: np.ndarray, k: int) -> list[list[Hit]]:
        """Return the `k` nearest passages of each vector, best first; equal scores in the order of ids.

        Args:
            vectors: float32 `[queries, dimension]`.
            k: hits per query, at least 1; fewer come back when the index has fewer rows.

        Raises:
            ValueError: a vector has another size, or is not finite, or `k` is below 1.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.manifest.dimension:
            raise ValueError(f"vectors have shape {vectors.shape}, not [queries, {self.manifest.dimension}]")
        if not np.isfinite(vectors).all():
            raise ValueError("a vector holds NaN or infinity")
        if k < 1:
            raise ValueError(f"k is {k}, not at least 1")
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        scores, rows = self._vectors.search(queries, min(k, self.manifest.rows))
        found = [
            [Hit(int(row), self._field(int(row), "id"), float(score)) for row, score in zip(*pair, strict=True)]
            for pair in zip(rows, scores, strict=True)
        ]
        return [sorted(hits, key=lambda hit: (-hit.score, hit.id)) for hits in found]

    def passage(self, row: int) -> Passage:
        """Return the passage of a row.

        Raises:
            IndexError: there is no such row.
        """
        return Passage(**{name: self._field(row, name) for name in ("id", "title", "text")})

    def _field(self, row: int, name: str) -> str:
        if not 0 <= row < self.manifest.rows:
            raise IndexError(f"row {row} is not among the {self.manifest.rows} rows of the index")
        part = bisect_right(self._starts, row) - 1
        return str(self._columns[part][name][row - self._starts[part]].as_py())


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"The index {folder} is damaged: {what}; remove that folder and run `causalneg index` again.")


def read_manifest(folder: Path) -> IndexManifest:
    """Read an index version's manifest.

    Raises:
        UserError: there is none, or it was changed.
    """
    try:
        manifest = IndexManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"There is no index in {folder} ({MANIFEST} is missing); run `causalneg index`.") from error
    except (OSError, ValidationError) as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read") from error
    if manifest.sealed() != manifest:
        raise _damaged(folder, f"{MANIFEST} is not as it was written")
    if manifest.version != folder.name:
        raise _damaged(folder, f"{MANIFEST} is that of version {manifest.version}")
    if set(manifest.files) != {VECTORS, PASSAGES}:
        raise _damaged(folder, f"{MANIFEST} does not name {VECTORS} and {PASSAGES}")
    return manifest


def _verify_files(folder: Path, manifest: IndexManifest) -> None:
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise _damaged(folder, f"{name} is missing")
        if path.stat().st_size != entry.bytes:
            raise _damaged(folder, f"{name} has {path.stat().st_size} bytes, not {entry.bytes}")
        if file_sha256(path) != entry.sha256:
            raise _damaged(folder, f"{name} does not have the checksum in {MANIFEST}")


def _read_vectors(folder: Path, manifest: IndexManifest) -> Any:  # noqa: ANN401 - faiss has no types
    import faiss

    try:
        vectors = faiss.read_index(str(folder / VECTORS))
    except RuntimeError as error:
        raise _damaged(folder, f"{VECTORS} is no FAISS index") from error
    if not isinstance(vectors, faiss.IndexFlat) or vectors.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise _damaged(folder, f"{VECTORS} is not a flat inner-product index")
    if vectors.d != manifest.dimension:
        raise _damaged(folder, f"{VECTORS} has {vectors.d} dimensions, {MANIFEST} {manifest.dimension}")
    if vectors.ntotal != manifest.rows:
        raise _damaged(folder, f"{VECTORS} has {vectors.ntotal} rows, {MANIFEST} {manifest.rows}")
    return vectors


def _map_passages(folder: Path, manifest: IndexManifest) -> list[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(folder / PASSAGES)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(folder, f"{PASSAGES} is no Arrow file") from error
    if reader.schema != arrow_schema(Passage):
        raise _damaged(folder, f"{PASSAGES} does not have the columns id, title and text")
    rows = sum(batch.num_rows for batch in batches)
    if rows != manifest.rows:
        raise _damaged(folder, f"{PASSAGES} has {rows} rows, {MANIFEST} {manifest.rows}")
    return batches


def open_index(folder: Path, model_fingerprint: str) -> Index:
    """Open an index version for queries encoded by one model, after checking that it is whole.

    Args:
        folder: `index/<version>`.
        model_fingerprint: of the model that encodes the queries.

    Raises:
        UserError: the index is missing or damaged, or was built with another model.
    """
    manifest = read_manifest(folder)
    if manifest.model.fingerprint != model_fingerprint:
        built = f"{manifest.model.name} ({manifest.model.fingerprint})"
        raise UserError(
            f"The index {folder} was built with the model {built}, but queries would be "
            f"encoded by {model_fingerprint}; run `causalneg index` again."
        )
    # faiss.read_index trusts its file, so nothing is read before its checksum is right.
    _verify_files(folder, manifest)
    return Index(manifest, _read_vectors(folder, manifest), _map_passages(folder, manifest))
