"""The corpora that the tests of the index share, and versions built from them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from causalneg.config import IndexSettings
from causalneg.console import Reporter
from causalneg.files import file_sha256
from causalneg.indexing.build import build_version
from causalneg.indexing.manifest import MANIFEST, IndexManifest, IndexModel
from causalneg.indexing.store import Index, open_index
from causalneg.manifest import FileEntry
from causalneg.records import Passage, to_table

PASSAGES = [
    Passage(id="rome", title="Rome", text="Rome is the capital of Italy."),
    Passage(id="paris", title="Paris", text="Paris is the capital of France."),
    Passage(id="moon", text="The Moon orbits the Earth in about 27 days.", metadata='{"days":27}'),
    Passage(id="bread", text='Bread is baked from flour, water & yeast — "pane" in Italian.'),
    Passage(id="mars", title="Mars", text="Mars is the fourth planet from the Sun."),
]
MODEL = IndexModel(name="test", fingerprint="0123456789abcdef")


def clustered(rows: int, dimension: int = 32, seed: int = 3) -> np.ndarray:
    """Return vectors of length 1 around common centres, as those of texts lie: float32 `[rows, dimension]`."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dimension))
    drawn = centres[rng.integers(40, size=rows)] + 0.7 * rng.normal(size=(rows, dimension))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def asked(vectors: np.ndarray, count: int, seed: int = 4) -> np.ndarray:
    """Return queries near some of the vectors, float32 `[count, dimension]`."""
    rng = np.random.default_rng(seed)
    near = vectors[rng.integers(len(vectors), size=count)]
    return (near + 0.1 * rng.normal(size=near.shape)).astype(np.float32)


def numbered(rows: int) -> list[Passage]:
    """Return as many passages, `p0` first."""
    return [Passage(id=f"p{number}", text=f"text {number}") for number in range(rows)]


def build(
    folder: Path,
    vectors: np.ndarray,
    passages: Sequence[Passage] | None = None,
    *,
    queries: np.ndarray | None = None,
    report: Reporter | None = None,
    **settings: object,
) -> IndexManifest:
    """Build a version of vectors in two blocks and passages in batches of other sizes."""
    half = (len(vectors) + 1) // 2
    rows = numbered(len(vectors)) if passages is None else passages
    return build_version(
        folder,
        MODEL,
        lambda: [vectors[:half], vectors[half:]] if half < len(vectors) else [vectors],
        to_table(Passage, rows).to_batches(max_chunksize=max(1, len(rows) // 3)),
        IndexSettings.model_validate(settings),
        rows=len(rows),
        report=report or Reporter(io.StringIO()),
        queries=queries,
    )


def opened(folder: Path) -> Index:
    """Open a version built by `build`."""
    return open_index(folder, MODEL.fingerprint)


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Return the rows of the `k` largest inner products, the first of equal ones first, int64 `[queries, k]`."""
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the share of the wanted rows that were found."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


def reseal(folder: Path, **changes: object) -> None:
    """Write a manifest that is right about its files and its seal, but otherwise changed."""
    manifest = IndexManifest.model_validate_json((folder / MANIFEST).read_bytes())
    files = {
        name: FileEntry(bytes=(folder / name).stat().st_size, sha256=file_sha256(folder / name))
        for name in manifest.files
    }
    changed = manifest.model_copy(update={"files": files, **changes}).sealed()
    (folder / MANIFEST).write_bytes(changed.written())
