"""Builds an index version from vectors and passages and publishes it whole."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from causalneg.config import IndexSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.files import locked, sync
from causalneg.indexing.fill import CorpusVectors, by_shard
from causalneg.indexing.manifest import (
    LEXICAL,
    MANIFEST,
    Canary,
    IndexManifest,
    IndexModel,
    Shard,
    file_entries,
    passages_file,
    read_manifest,
    vectors_file,
)
from causalneg.indexing.search import VectorSearch, local_search
from causalneg.indexing.store import Passages, map_passages
from causalneg.indexing.tune import choose
from causalneg.records import Passage, arrow_schema

if TYPE_CHECKING:
    import faiss

_LOCK, _UNFINISHED = "build.lock", ".build-"
_CANARIES, _CANDIDATES = 8, 64
_SEED = 0


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """Have a folder beside a version to build it in; what killed builds left there is removed.

    Only one version is built at a time, so that whatever is found belongs to nobody.
    """
    with locked(target.parent / _LOCK):
        for left in target.parent.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=target.parent))
        try:
            yield folder
        except OSError as error:
            raise UserError(
                f"The index {target} cannot be written ({error.strerror or error}); free space there, or see that it "
                "can be written, and do the same again."
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, target: Path) -> None:
    """Give a finished folder its name, when all that is in it is on the disk."""
    folder.chmod(0o755)  # mkdtemp's folder is for its owner alone
    for path in (*folder.rglob("*"), folder):
        sync(path)
    folder.rename(target)
    sync(target.parent)


def _shard_rows(rows: int, shards: int) -> list[int]:
    """Return the rows of each shard, as equal as can be; there are no empty ones."""
    return [len(part) for part in np.array_split(np.arange(rows), min(shards, rows))]


def _write_passages(folder: Path, batches: Iterable[pa.RecordBatch], shards: list[int]) -> Passages:
    """Write each shard's passages as an uncompressed Arrow IPC file, which can be mapped into memory, and map them.

    Raises:
        ValueError: there are more or fewer than the shards have rows.
    """
    schema = arrow_schema(Passage)
    rows = 0
    with ExitStack() as files:
        sinks = [files.enter_context(pa.OSFile(str(folder / passages_file(n)), "wb")) for n in range(len(shards))]
        writers = [files.enter_context(pa.ipc.new_file(sink, schema)) for sink in sinks]
        for shard, batch in by_shard(batches, shards):
            writers[shard].write_batch(batch.select(schema.names).cast(schema))
            rows += batch.num_rows
    if rows != sum(shards):
        raise ValueError(f"{rows} passages instead of {sum(shards)}")
    return map_passages(folder, shards)


def _write_vectors(folder: Path, indexes: "list[faiss.Index]") -> None:
    import faiss

    for number, index in enumerate(indexes):
        # Through a file of ours, which says what the system says; FAISS's own leaves out whether closing it worked.
        with (folder / vectors_file(number)).open("wb") as file:
            faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def _canaries(search: VectorSearch, corpus: CorpusVectors, passages: Passages) -> list[Canary]:
    """Return some passages, drawn by seed, that the index finds first by their own vectors."""
    drawn = np.random.default_rng(_SEED).choice(corpus.rows, min(_CANDIDATES, corpus.rows), replace=False)
    numbers = np.sort(drawn)
    found = search.search(corpus.take(numbers), 1)[1][:, 0]
    chosen = [passages.get(int(row)) for row in numbers[found == numbers][:_CANARIES]]
    return [Canary(text=passage.full_text, id=passage.id) for passage in chosen]


def build_version(
    target: Path,
    model: IndexModel,
    vectors: Callable[[], Iterable[np.ndarray]],
    passages: Iterable[pa.RecordBatch],
    settings: IndexSettings,
    *,
    rows: int,
    change: int = 0,
    report: Reporter,
    queries: np.ndarray | None = None,
) -> IndexManifest:
    """Write the index version `target`, which appears whole or not at all.

    Memory holds the index and a sample that it is trained with; vectors and passages pass through in blocks.

    Args:
        target: `index/<version>`; one that is there already is left as it is.
        model: the encoder of the vectors.
        vectors: streams them, float32 `[rows, dimension]`, in the order of the passages, as often as it is called.
        passages: batches of them.
        settings: kind, wanted recall, shards and so on.
        rows: number of passages.
        change: number of the last change that the passages hold.
        report: says what was chosen and why.
        queries: held-out queries to measure recall with, float32 `[queries, dimension]`; made up when unset.

    Raises:
        UserError: there are no passages, a vector cannot be searched, the settings cannot be met, or the disk is full.
        ValueError: the numbers of vectors and passages are not `rows`.
    """
    if not rows:
        raise UserError("The corpus has no passages to index; run `causalneg import` with another source.")
    shards = _shard_rows(rows, settings.shards)
    with _workplace(target) as folder:
        if (target / MANIFEST).exists():
            return read_manifest(target)
        there = _write_passages(folder, passages, shards)
        corpus = CorpusVectors(vectors, rows, lambda row: there.get(row).id)
        if settings.lexical:
            from causalneg.indexing.lexical import build_lexical

            build_lexical(folder / LEXICAL, there.texts(), settings.language)
        choice = choose(corpus, shards, settings, queries, target, report)
        _write_vectors(folder, choice.indexes)
        search = local_search(choice.indexes, choice.kind, choice.parameters, target)
        manifest = IndexManifest(
            version=target.name,
            kind=choice.kind,
            dimension=search.dimension,
            rows=rows,
            shards=[Shard(rows=size) for size in shards],
            model=model,
            change=change,
            lexical=settings.lexical,
            language=settings.language,
            recall=choice.recall,
            parameters=choice.parameters,
            curve=choice.curve,
            canaries=_canaries(search, corpus, there),
            files=file_entries(folder),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        ).sealed()
        (folder / MANIFEST).write_bytes(manifest.written())
        _publish(folder, target)
    return manifest
