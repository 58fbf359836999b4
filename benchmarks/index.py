"""The kinds of index: what they find, how fast, in how much memory, built in what time; against plain FAISS.

    python -m benchmarks.index --workspace DIR --source msmarco.zip --source hotpotqa.zip --source scifact.zip \
        --source squad.zip --source nfcorpus.zip [--rows 1000000]

The vectors are those of all-MiniLM-L6-v2 (384 dimensions). Of texts there are the passages of the sources and, where
these are fewer than `--encoded`, windows of two sentences of them, in the order of a seed. Rows beyond those are no
texts: each is the normalised mean, with a weight drawn by seed, of a real vector and one of its 10 nearest neighbours
(SMOTE, Chawla et al., 2002), so that they lie where real ones do, somewhat closer together. Queries are real: those of
the sources that are in no train split, 200 to tune with and up to 1,000 others to measure with.

Of every kind there are two peers: `plain FAISS` is `index_factory` with the same text, trained and filled with all
vectors at once, searched with its default settings; `the same search` is that index searched with our settings, which
shows what our checks cost. `flat` is what an exact search takes. A query is timed alone in one thread, the median of
all; batches have 64 queries and all threads. Memory is by how much a process grows that opens the index and searches.
Vectors are kept in the workspace, so that another run encodes nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks.common import RESULTS, Row, publish, with_earlier
from benchmarks.endpoints.corpus import Corpus, read_corpus
from causalneg.config import IndexSettings
from causalneg.console import Reporter
from causalneg.indexing.build import build_version
from causalneg.indexing.kinds import KINDS, Kind, Parameters, new_index, search_parameters
from causalneg.indexing.manifest import IndexManifest, IndexModel
from causalneg.indexing.store import open_index
from causalneg.models import ResolvedModel, resolve
from causalneg.records import Passage, to_table

_NEAREST, _BATCH = 10, 64
_QUICK_ROWS, _QUICK_KINDS = 1500, ("sq8", "hnsw", "ivf_rabitq")
_RECALL, _OVERHEAD_MS = 0.95, 0.1
_MB = 1e6


# How it is measured

Search = Callable[[np.ndarray], np.ndarray]  # queries to rows [queries, 10]


class Measured(NamedTuple):
    """Recall; milliseconds of one query in one thread; queries a second in batches."""

    recall: float
    milliseconds: float
    per_second: float


def _measure(search: Search, queries: np.ndarray, exact: np.ndarray) -> Measured:
    import faiss

    threads = faiss.omp_get_max_threads()
    started = time.perf_counter()
    batches = [search(queries[at : at + _BATCH]) for at in range(0, len(queries), _BATCH)]
    per_second = len(queries) / (time.perf_counter() - started)
    found = np.concatenate(batches)
    recall = float(
        np.mean([len(set(a) & set(b)) / _NEAREST for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    )
    faiss.omp_set_num_threads(1)
    taken = []
    for query in queries[:300, None]:
        started = time.perf_counter()
        search(query)
        taken.append(1000 * (time.perf_counter() - started))
    faiss.omp_set_num_threads(threads)
    return Measured(recall, statistics.median(taken), per_second)


def _opened(folder: Path, fingerprint: str, plain: bool, queries: Path) -> None:
    """Open an index, by us or by FAISS alone, search, and print by how many MB this process grew."""
    import faiss

    asked = np.load(queries)
    before = psutil.Process().memory_info().rss
    index = faiss.read_index(str(folder)) if plain else open_index(folder, fingerprint)
    index.search(asked, _NEAREST)
    sys.stdout.write(json.dumps((psutil.Process().memory_info().rss - before) / _MB) + "\n")


def _grown(folder: Path, model: ResolvedModel, plain: bool, queries: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.index", "--open", str(folder), "--fingerprint", model.fingerprint]
    command += ["--queries", str(queries)] + ["--plain"] * plain
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - ourselves
    return float(json.loads(done.stdout.splitlines()[-1]))


def _build(target: Path, data: Corpus, model: ResolvedModel, settings: IndexSettings) -> tuple[IndexManifest, float]:
    rows = len(data.vectors)
    block = 8192
    started = time.perf_counter()
    manifest = build_version(
        target,
        IndexModel(name=model.name, fingerprint=model.fingerprint),
        lambda: (data.vectors[at : at + block] for at in range(0, rows, block)),
        (batch for at in range(0, rows, block) for batch in _passages(at, min(at + block, rows))),
        settings,
        rows=rows,
        report=Reporter(),
        queries=data.tune,
    )
    return manifest, time.perf_counter() - started


def _passages(start: int, end: int) -> Any:  # noqa: ANN401 - Arrow has no types
    return to_table(Passage, [Passage(id=str(row), text="") for row in range(start, end)]).to_batches()


def _plain(kind: Kind, vectors: np.ndarray) -> tuple[Any, float]:
    started = time.perf_counter()
    index = new_index(kind, *vectors.shape)
    index.train(vectors)
    index.add(vectors)
    return index, time.perf_counter() - started


def _rows_of(
    kind: Kind, data: Corpus, exact: np.ndarray, flat: Measured, folder: Path, model: ResolvedModel
) -> list[Row]:
    import faiss

    manifest, seconds = _build(folder / kind, data, model, IndexSettings(kind=kind, recall=_RECALL))
    index = open_index(folder / kind, model.fingerprint)
    ours = _measure(lambda queries: index.search(queries, _NEAREST)[1], data.queries, exact)
    peer, peer_seconds = _plain(kind, data.vectors)
    parameters: Parameters = manifest.parameters
    same_search = search_parameters(kind, parameters)
    same = _measure(lambda queries: peer.search(queries, _NEAREST, params=same_search)[1], data.queries, exact)
    default = _measure(lambda queries: peer.search(queries, _NEAREST)[1], data.queries, exact)
    file, asked = folder / f"{kind}.faiss", folder / "queries.npy"
    faiss.write_index(peer, str(file))
    size = sum(entry.bytes for name, entry in manifest.files.items() if name.endswith(".faiss")) / _MB
    grown = _grown(folder / kind, model, False, asked), _grown(file, model, True, asked)
    with_search = f"{kind} ({', '.join(f'{n} {v}' for n, v in parameters.items()) or 'no settings'})"
    plain, alike = "plain FAISS, default search", "plain FAISS, the same search"
    flat_mb = data.vectors.nbytes / _MB
    return [
        Row(
            f"recall@10, {with_search}",
            "share",
            ours.recall,
            plain,
            default.recall,
            ours.recall / default.recall,
            _RECALL,
        ),
        Row(
            f"a query, {kind}",
            "ms",
            ours.milliseconds,
            "flat",
            flat.milliseconds,
            flat.milliseconds / ours.milliseconds,
        ),
        Row(
            f"a query, {kind}", "ms", ours.milliseconds, alike, same.milliseconds, same.milliseconds / ours.milliseconds
        ),
        Row(
            f"a query, our checks, {kind}",
            "ms",
            ours.milliseconds - same.milliseconds,
            "goal",
            _OVERHEAD_MS,
            _OVERHEAD_MS / max(ours.milliseconds - same.milliseconds, 1e-4),
            1.0,
        ),
        Row(
            f"batches, {kind}", "queries/s", ours.per_second, alike, same.per_second, ours.per_second / same.per_second
        ),
        Row(f"vectors' file, {kind}", "MB", size, "flat", flat_mb, flat_mb / size),
        Row(f"memory of a process, {kind}", "MB", grown[0], "plain FAISS", grown[1], grown[1] / grown[0]),
        Row(
            f"built, tuned and written, {kind}",
            "s",
            seconds,
            "plain FAISS, filled",
            peer_seconds,
            peer_seconds / seconds,
        ),
    ]


def _measured_flat(data: Corpus) -> tuple[np.ndarray, Measured, float]:
    """Return the exact nearest rows, what an exact search takes, and the seconds to fill it."""
    index, seconds = _plain("flat", data.vectors)
    exact = index.search(data.queries, _NEAREST)[1]
    return exact, _measure(lambda queries: index.search(queries, _NEAREST)[1], data.queries, exact), seconds


def _rows(arguments: argparse.Namespace, folder: Path) -> tuple[list[Row], Kind]:
    """Return the rows, and the kind that `auto` took."""
    import faiss

    model = resolve("embedded:minilm-l6")
    rows = _QUICK_ROWS if arguments.quick else arguments.rows
    data = read_corpus(folder, arguments.source or ["embedded:sample"], rows, model, arguments.encoded)
    np.save(folder / "queries.npy", data.queries[:_BATCH])
    exact, flat, flat_seconds = _measured_flat(data)
    kinds = list(arguments.kind or (_QUICK_KINDS if arguments.quick else KINDS))
    if not arguments.kind:
        kinds = [kind for kind in kinds if rows <= (KINDS[kind].most_rows or rows)]
    measured: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="versions-", dir=folder) as versions:
        (Path(versions) / "queries.npy").write_bytes((folder / "queries.npy").read_bytes())
        for kind in kinds:
            measured += _rows_of(kind, data, exact, flat, Path(versions), model)
        manifest, seconds = _build(Path(versions) / "auto", data, model, IndexSettings(recall=_RECALL))
        measured.append(Row("built, auto", "s", seconds, "flat, filled", flat_seconds, flat_seconds / seconds))
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    return measured, manifest.kind


def main() -> None:
    """Measure every kind and publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--source", action="append", help="data set, as for `causalneg import`; may be given repeatedly"
    )
    parser.add_argument("--rows", type=int, default=100_000, help="vectors to index")
    parser.add_argument("--encoded", type=int, default=100_000, help="at most so many of them are those of texts")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="kind to measure; rows of others stay")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--name", default="index", help="name of the result file")
    parser.add_argument("--quick", action="store_true", help="few vectors and kinds: does it run, not what it gives")
    parser.add_argument("--workspace", help="where vectors are kept; a temporary folder when unset")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fingerprint", help=argparse.SUPPRESS)
    parser.add_argument("--queries", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        _opened(arguments.open, arguments.fingerprint, arguments.plain, arguments.queries)
        return
    with tempfile.TemporaryDirectory(prefix="causalneg-index-") as temporary:
        folder = Path(arguments.workspace or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows, taken = _rows(arguments, folder)
    if arguments.kind:
        rows = with_earlier(arguments.name, rows, arguments.results)
    publish(arguments.name, rows, Reporter(), arguments.results, {"auto": taken})


if __name__ == "__main__":
    main()
