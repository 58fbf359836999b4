"""Loads and searches the FAISS indexes of a version in a process of its own: `python -m causalneg.indexing.trial`.

A file with the right checksums may still have been written by somebody who means harm, and FAISS, which is C++, trusts
what it reads. What crashes, takes too much memory or does not end does so here. Exits with 0, or prints what is wrong
and exits with 1. Imports little, for each start of a server waits for it.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causalneg.indexing.kinds import KINDS, Kind, exhaustive, new_index, parts, search_parameters, structure

if TYPE_CHECKING:
    import faiss

_QUERIES = 8
_FLAWED = 3  # exit code
_LIBRARY_BYTES = 4 * 1024**3  # address space that Python and the libraries take themselves, generously
_SECONDS = 60.0
_BYTES_PER_SECOND = 20e6  # that a slow disk reads


def _links_flaw(graph: "faiss.HNSW", rows: int) -> str | None:
    """Return what is wrong with the links of an HNSW graph, by which a search goes from row to row."""
    import faiss

    levels = faiss.vector_to_array(graph.levels).astype(np.int64)
    offsets = faiss.vector_to_array(graph.offsets).astype(np.int64)
    links = faiss.vector_to_array(graph.neighbors)
    places = faiss.vector_to_array(graph.cum_nneighbor_per_level).astype(np.int64)
    if len(levels) != rows or len(offsets) != rows + 1 or not 0 <= graph.entry_point < rows:
        return "its graph has another number of rows"
    if levels.min() < 1 or levels.max() >= len(places) or graph.max_level != levels[graph.entry_point] - 1:
        return "its graph has layers that are not there"
    if offsets[0] or offsets[-1] != len(links) or not np.array_equal(np.diff(offsets), places[levels]):
        return "its graph is not in one piece"
    if links.min() < -1 or links.max() >= rows:
        return "its graph leads to rows that are not there"
    return None


def _lists_flaw(index: "faiss.IndexIVF", rows: int) -> str | None:
    """Return what is wrong with inverted lists, which must hold every row once."""
    import faiss

    lists = index.invlists
    if lists.nlist != index.nlist or index.quantizer.ntotal != index.nlist or lists.code_size != index.code_size:
        return "its inverted lists are not those of its centroids"
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    if sum(sizes) != rows:
        return "its inverted lists hold another number of rows"
    held = [faiss.rev_swig_ptr(lists.get_ids(n), size) for n, size in enumerate(sizes) if size]
    if not np.array_equal(np.sort(np.concatenate(held)), np.arange(rows)):
        return "its inverted lists do not hold each row once"
    return None


def _flaw(path: Path, kind: Kind, rows: int, dimension: int) -> str | None:
    """Return what is wrong with a shard's FAISS index, or None after it answered some queries."""
    import faiss

    try:
        index = faiss.read_index(str(path))
    except RuntimeError:
        return "it is no FAISS index"
    if structure(index) != structure(new_index(kind, rows, dimension)):
        return f"it is not an inner-product index of kind {kind} with {dimension} dimensions"
    for part in parts(index):
        if part.ntotal != rows or (hasattr(part, "codes") and part.codes.size() != rows * part.code_size):
            return f"it has {part.ntotal} rows, not {rows}"
    inverted = faiss.try_extract_index_ivf(index)
    wrong = _links_flaw(index.hnsw, rows) if kind == "hnsw" else _lists_flaw(inverted, rows) if inverted else None
    if wrong:
        return wrong
    queries = np.random.default_rng(0).normal(size=(_QUERIES, dimension)).astype(np.float32)
    exact, every = exhaustive(index, kind)
    ladder = KINDS[kind].ladder(rows)
    searches = [(exact, every(None), 0)]  # looking at every row finds as many as are asked for
    searches += [(index, search_parameters(kind, rung), -1) for rung in (ladder[0], ladder[-1])]
    for searched, parameters, least in searches:
        scores, found = searched.search(queries, min(10, rows), params=parameters)
        if found.min() < least or found.max() >= rows or not np.isfinite(scores[found >= 0]).all():
            return "its answers are not rows with scores"
    return None


def attempt(folder: Path, files: Iterable[tuple[str, int]], kind: Kind, dimension: int) -> str | None:
    """Have another process load and search the FAISS indexes of a version; return what is wrong, or None.

    Args:
        folder: the version.
        files: name and rows of each FAISS index.
        kind: of all of them.
        dimension: of their vectors.
    """
    wanted = json.dumps({"files": list(files), "kind": kind, "dimension": dimension})
    size = sum(path.stat().st_size for path in folder.glob("*.faiss"))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-m", __name__, str(folder), wanted],
            env=os.environ | threads | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS + size / _BYTES_PER_SECOND,
        )
    except subprocess.TimeoutExpired:
        return "loading its vectors takes without end"
    if done.returncode == 0:
        return None
    if done.returncode == _FLAWED:
        return done.stdout.strip()
    if done.returncode < 0:
        return f"loading its vectors ended with {signal.Signals(-done.returncode).name}"
    return f"its vectors cannot be loaded ({(done.stderr.strip().splitlines() or ['no reason is known'])[-1]})"


def main() -> int:
    """Try every index and return the exit code."""
    folder, wanted = Path(sys.argv[1]), json.loads(sys.argv[2])
    largest = max((folder / name).stat().st_size for name, _ in wanted["files"])
    limit = _LIBRARY_BYTES + 4 * largest
    with contextlib.suppress(ValueError, OSError):  # a system without such limits has the time limit still
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an answer, not something to look into
    for name, rows in wanted["files"]:
        if wrong := _flaw(folder / name, wanted["kind"], rows, wanted["dimension"]):
            sys.stdout.write(f"{name}: {wrong}\n")
            return _FLAWED
    return 0


if __name__ == "__main__":
    sys.exit(main())
