"""Builds an index version from vectors and passages and publishes it whole."""

import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from causalneg.embedding import flat_index
from causalneg.files import file_sha256, sync
from causalneg.indexing.store import MANIFEST, PASSAGES, VECTORS, IndexManifest, IndexModel
from causalneg.records import Passage, arrow_schema
from causalneg.workspace import FileEntry


def write_passages(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write passages as an uncompressed Arrow IPC file, which can be mapped into memory; return how many."""
    rows = 0
    schema = arrow_schema(Passage)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch.select(schema.names).cast(schema))
            rows += batch.num_rows
    return rows


def _publish(temporary: Path, target: Path) -> None:
    """Rename a finished folder to its final name; the first to do so wins, for both hold the same."""
    for path in (*temporary.iterdir(), temporary):
        sync(path)
    try:
        temporary.rename(target)
    except OSError:
        if not (target / MANIFEST).exists():
            raise
    sync(target.parent)


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
