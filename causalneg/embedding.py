"""Encodes texts with a sentence-transformers model; a corpus with Ray Data, once per model and file."""

import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.models import ResolvedModel
from causalneg.records import Passage, from_table
from causalneg.runtime import cores, ray_session, supports_bf16
from causalneg.workspace import Workspace

if TYPE_CHECKING:
    import faiss
    from sentence_transformers import SentenceTransformer

_SLICE_ROWS = 512  # rows encoded and written at a time: what a killed run loses at most


def load_encoder(model: ResolvedModel, threads: int | None = None) -> "SentenceTransformer":
    """Load an encoder; code that comes with a model is never run."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads or cores())
    return SentenceTransformer(
        str(model.path),
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"use_safetensors": True},
    )


def encode(
    encoder: "SentenceTransformer",
    texts: Sequence[str],
    kind: Literal["query", "passage"],
    batch_size: int = 32,
) -> np.ndarray:
    """Encode texts with the model's own prompt for queries or passages.

    Passages, of which there are many, are encoded with bf16 products where the device has them: twice as fast or
    more, and their cosine to the fp32 vectors is above 0.9999.

    Returns:
        float32 `[len(texts), dimension]`, rows of length 1.
    """
    import torch

    function = encoder.encode_query if kind == "query" else encoder.encode_document
    low = kind == "passage" and supports_bf16(encoder.device)
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=low):
        vectors = function(list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
    return np.ascontiguousarray(vectors, dtype=np.float32)


class _SliceEncoder:
    """Ray Data actor: encodes slices of the corpus's files and writes each as one `.npy` file."""

    def __init__(self, root: str, model: ResolvedModel, batch_size: int) -> None:
        self.workspace, self.batch_size = Workspace(root), batch_size
        self.encoder = load_encoder(model)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import pyarrow.parquet as pq

        for name, start, target in zip(batch["file"], batch["start"], batch["target"], strict=True):
            with self.workspace.fs.open(self.workspace.path(str(name)), "rb") as file:
                table = pq.read_table(file).slice(int(start), _SLICE_ROWS)
            texts = [p.full_text for p in from_table(Passage, table)]
            buffer = io.BytesIO()
            np.save(buffer, encode(self.encoder, texts, "passage", self.batch_size), allow_pickle=False)
            self.workspace.write_bytes(str(target), buffer.getvalue())
        return {"rows": batch["rows"]}


def embed_corpus(workspace: Workspace, model: ResolvedModel, batch_size: int, report: Reporter) -> list[str]:
    """Encode the whole corpus and keep the vectors in the workspace; nothing is encoded twice.

    Returns:
        Names of `.npy` files in the workspace; joined, their float32 rows are in the corpus's order.
    """
    import pyarrow.parquet as pq

    files = {n: e for n, e in workspace.require("import").files.items() if n.startswith("corpus/")}
    slices = []
    for name, entry in sorted(files.items()):
        with workspace.fs.open(workspace.path(name), "rb") as file:
            rows = pq.ParquetFile(file).metadata.num_rows
        for number in range(math.ceil(rows / _SLICE_ROWS)):
            start = number * _SLICE_ROWS
            target = f"embeddings/{model.fingerprint}/{entry.sha256[:16]}-{number:06d}.npy"
            slices.append({"file": name, "start": start, "rows": min(_SLICE_ROWS, rows - start), "target": target})
    missing = [s for s in slices if not workspace.exists(s["target"])]
    if missing:
        total, left = sum(s["rows"] for s in slices), sum(s["rows"] for s in missing)
        with ray_session(), report.meter("encoding", total, "passages", total - left) as meter:
            import ray

            dataset = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
                _SliceEncoder,
                fn_constructor_args=(workspace.root_url, model, batch_size),
                batch_size=1,
                num_cpus=1,
                concurrency=1,
            )
            for row in dataset.iter_rows():
                meter.advance(int(row["rows"]))
    return [s["target"] for s in slices]


def load_vectors(workspace: Workspace, names: Iterable[str]) -> Iterable[np.ndarray]:
    """Stream the vectors of `embed_corpus`, one file at a time, float32 `[rows, dimension]`."""
    for name in names:
        with workspace.fs.open(workspace.path(name), "rb") as file:
            yield np.load(file, allow_pickle=False)


def flat_index(blocks: Iterable[np.ndarray]) -> "faiss.IndexFlatIP":
    """Put vectors into an exact inner-product index.

    Args:
        blocks: float32 `[rows, dimension]`, in the order of the corpus.

    Raises:
        UserError: there are no vectors, or one is not finite.
    """
    import faiss

    index: faiss.IndexFlatIP | None = None
    for block in blocks:
        if not np.isfinite(block).all():
            raise UserError("The encoder gave a passage a vector with NaN or infinity; train it again or name another.")
        index = index or faiss.IndexFlatIP(block.shape[1])
        index.add(np.ascontiguousarray(block, dtype=np.float32))
    if index is None or not index.ntotal:
        raise UserError("The corpus has no passages to index; run `causalneg import` with another source.")
    return index
