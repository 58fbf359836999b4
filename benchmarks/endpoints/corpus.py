"""Real passages and queries with their vectors, as many as are wanted, for benchmarks of the index and the server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from causalneg.config import EncodeSettings, load_config
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.models import ResolvedModel
from causalneg.records import Passage, Qrel, Query
from causalneg.sources.run import run as import_data
from causalneg.vectors import embed_texts
from causalneg.workspace import Workspace

_NEAREST, _WINDOW = 10, 2
_TUNE, _MEASURE = 200, 1000
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Corpus(NamedTuple):
    """What is searched.

    Attributes:
        texts: of the rows that are texts, in the order of the first vectors.
        vectors: to index, float32 `[rows, dimension]`.
        tune: queries to tune with, float32 `[queries, dimension]`.
        queries: queries to measure with, likewise.
        query_texts: of those.
    """

    texts: list[str]
    vectors: np.ndarray
    tune: np.ndarray
    queries: np.ndarray
    query_texts: list[str]


def _imported(folder: Path, sources: list[str]) -> list[Workspace]:
    found = []
    for source in sources:
        workspace = Workspace(str(folder / re.sub(r"\W+", "-", Path(source).stem)))
        import_data(
            load_config(flags={"workspace": workspace.root_url, "import.source": source}), workspace, Reporter()
        )
        found.append(workspace)
    return found


def _windows(text: str) -> Iterator[str]:
    sentences = _SENTENCE.split(text)
    for at in range(0, len(sentences) - 1, _WINDOW):
        yield " ".join(sentences[at : at + _WINDOW])


def _texts(workspaces: list[Workspace], count: int) -> list[str]:
    """Return different texts: passages first, then windows of them, each in the order of a seed."""
    passages = [p.full_text for w in workspaces for p in w.read_rows("corpus", Passage)]
    passages = list(dict.fromkeys(passages[at] for at in np.random.default_rng(0).permutation(len(passages))))
    windows = (window for passage in passages for window in _windows(passage)) if len(passages) < count else ()
    return list(dict.fromkeys([*passages, *windows]))[:count]


def _query_texts(workspaces: list[Workspace]) -> list[str]:
    texts: list[str] = []
    for workspace in workspaces:
        known = {qrel.query_id for qrel in workspace.read_rows("qrels", Qrel) if qrel.split == "train"}
        texts += [query.text for query in workspace.read_rows("queries", Query) if query.id not in known]
    texts = list(dict.fromkeys(texts))
    return [texts[at] for at in np.random.default_rng(1).permutation(len(texts))]


def _mixed(vectors: np.ndarray, rows: int) -> np.ndarray:
    """Return vectors between real ones and their near neighbours, after the real ones, as many as `rows` in all."""
    import faiss

    rng = np.random.default_rng(2)
    near = faiss.knn(vectors, vectors, _NEAREST + 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 1:]
    out = np.empty((rows, vectors.shape[1]), np.float32)
    out[: len(vectors)] = vectors
    for start in range(len(vectors), rows, len(vectors)):
        one = rng.permutation(len(vectors))[: rows - start]
        other = near[one, rng.integers(near.shape[1], size=len(one))]
        weight = rng.uniform(0.2, 0.8, size=(len(one), 1)).astype(np.float32)
        mean = weight * vectors[one] + (1 - weight) * vectors[other]
        out[start : start + len(one)] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return out


def read_corpus(
    folder: Path, sources: list[str], rows: int, model: ResolvedModel, encoded: int | None = None
) -> Corpus:
    """Read passages and queries, and encode what no earlier run encoded.

    Args:
        folder: keeps what was imported and encoded.
        sources: data sets, as for `causalneg import`.
        rows: vectors in all.
        model: the encoder.
        encoded: of these, so many are texts; all when unset.
    """
    workspaces = _imported(folder, sources)
    texts = _texts(workspaces, min(rows, encoded or rows))
    kept = Workspace(str(folder / "vectors"))
    blocks = (texts[at : at + 1024] for at in range(0, len(texts), 1024))
    features = embed_texts(kept, model, EncodeSettings(), blocks)
    real = np.concatenate(list(features))
    asked = _query_texts(workspaces)[: _TUNE + _MEASURE]
    queries = encode(load_encoder(model), asked, "query")
    tune = min(_TUNE, len(queries) // 2)
    vectors = _mixed(real, rows) if rows > len(real) else real
    return Corpus(texts, vectors, queries[:tune], queries[tune:], asked[tune:])
