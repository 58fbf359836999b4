"""Builds an index version from vectors and passages and publishes it whole."""

import os
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from causalneg.errors import UserError
from causalneg.indexing.store import MANIFEST, PASSAGES, VECTORS, IndexManifest, IndexModel
from causalneg.models import file_sha256
from causalneg.records import Passage, arrow_schema
from causalneg.workspace import FileEntry


def flat_index(blocks: Iterable[np.ndarray]) -> Any:  # noqa: ANN401 - faiss has no types
    """Build a FAISS index for exact inner-product search.

    Args:
        blocks: float32 `[rows, dimension]`, in the order of the corpus.

    Raises:
        UserError: there are no vectors, or one is not finite.
    """
    import faiss

    index: Any = None
    for block in blocks:
        if not np.isfinite(block).all():
            raise UserError("The encoder gave a passage a vector with NaN or infinity; train it again or name another.")
        index = index or faiss.IndexFlatIP(block.shape[1])
        index.add(np.ascontiguousarray(block, dtype=np.float32))
    if index is None or not index.ntotal:
        raise UserError("The corpus has no passages to index; run `causalneg import` with another source.")
    return index


def write_passages(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write passages as an uncompressed Arrow IPC file, which can be mapped into memory; return how many."""
    rows = 0
    schema = arrow_schema(Passage)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch.select(schema.names).cast(schema))
            rows += batch.num_rows
    return rows


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(temporary: Path, target: Path) -> None:
    """Rename a finished folder to its final name; the first to do so wins, for both hold the same."""
    for path in (*temporary.iterdir(), temporary):
        _sync(path)
    try:
        temporary.rename(target)
    except OSError:
        if not (target / MANIFEST).exists():
            raise
    _sync(target.parent)


def build_version(
    target: Path, model: IndexModel, vectors: Iterable[np.ndarray], passages: Iterable[pa.RecordBatch]
) -> IndexManifest:
    """Write the index version `target`, which appears whole or not at all.

    Args:
        target: `index/<version>`; not there yet.
        model: the encoder of the vectors.
        vectors: float32 `[rows, dimension]`, in the order of the passages.
        passages: batches of id, title and text.

    Raises:
        UserError: there are no passages, or a vector is not finite.
        ValueError: the numbers of vectors and passages differ.
    """
    import faiss

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        index = flat_index(vectors)
        faiss.write_index(index, str(temporary / VECTORS))
        rows = write_passages(temporary / PASSAGES, passages)
        if rows != index.ntotal:
            raise ValueError(f"{index.ntotal} vectors for {rows} passages")
        files = [temporary / VECTORS, temporary / PASSAGES]
        manifest = IndexManifest(
            version=target.name,
            kind="flat",
            metric="inner_product",
            dimension=index.d,
            rows=rows,
            model=model,
            files={f.name: FileEntry(bytes=f.stat().st_size, sha256=file_sha256(f)) for f in files},
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        ).sealed()
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        _publish(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest
