"""The served retriever against what one writes by hand, and against infinity for embeddings, in one run.

    python -m benchmarks.serving --workspace DIR --source msmarco.zip --source hotpotqa.zip --source scifact.zip \
        --source squad.zip --source nfcorpus.zip [--infinity ENVIRONMENT/bin/infinity_emb]

Passages and queries are those of `benchmarks.index` (which shares the workspace, and the vectors in it), the encoder is
all-MiniLM-L6-v2. Each server runs alone, one after the other and again, with the load beside it on the same cores: a
closed loop of clients over kept connections. Recall is of the served answers against exact search with fp32 vectors.

- `FastAPI`: FastAPI, sentence-transformers and a flat FAISS index in one process (`endpoints/fastapi_peer.py`).
- `infinity`: infinity-emb with its torch engine, for `/embeddings`; left out where `--infinity` is not given.
- the limits: the encoder alone in this process (batches of 16), the index alone (queries one by one), the HTTP
  interface alone (uvicorn with a service that has its answers ready).
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, Row, publish
from benchmarks.endpoints.corpus import Corpus, read_corpus
from benchmarks.endpoints.load import Load, closed_loop
from benchmarks.endpoints.server import Server, causalneg_server, free_port, process_server
from causalneg.config import IndexSettings
from causalneg.console import Reporter
from causalneg.indexing.build import build_version
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.manifest import IndexManifest, IndexModel
from causalneg.indexing.store import open_index
from causalneg.models import ResolvedModel, resolve
from causalneg.records import Passage, to_table
from causalneg.serving.encoders import open_encoder

_CLIENTS = (1, 16, 64)
_NEAREST = 10
_MODEL = "embedded:minilm-l6"


def _index(folder: Path, corpus: Corpus, model: ResolvedModel) -> IndexManifest:
    """Return the index version that is served, built with `auto` if it is not there yet."""
    catalog = Catalog(folder / "index")
    target = catalog.folder / f"rows-{len(corpus.texts)}"
    rows = [Passage(id=f"p{number}", text=text) for number, text in enumerate(corpus.texts)]
    manifest = build_version(
        target,
        IndexModel(name=model.name, fingerprint=model.fingerprint),
        lambda: np.array_split(corpus.vectors, max(1, len(corpus.vectors) // 8192)),
        to_table(Passage, rows).to_batches(max_chunksize=8192),
        IndexSettings(kind="auto"),
        rows=len(rows),
        report=Reporter(),
        queries=corpus.tune,
    )
    catalog.activate(target.name)
    return manifest


def _fastapi(
    folder: Path, corpus: Corpus, manifest: IndexManifest, model: ResolvedModel
) -> AbstractContextManager[Server]:
    vectors = folder / "peer-vectors.npy"
    np.save(vectors, corpus.vectors)
    passages = folder / "index" / manifest.version / "passages-000.arrow"
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.endpoints.fastapi_peer"]
    return process_server([*command, str(model.path), str(vectors), str(passages), str(port)], port, "/docs")


def _infinity(program: str, model: ResolvedModel) -> AbstractContextManager[Server]:
    port = free_port()
    flags = [
        "--engine",
        "torch",
        "--device",
        "cpu",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-bettertransformer",
    ]
    return process_server([program, "v2", "--model-id", str(model.path), "--served-model-name", "m", *flags], port)


def _loads(server: Server, path: str, bodies: list[bytes], seconds: float, keep: bool = False) -> dict[int, Load]:
    """Warm up, then put each number of clients on a server."""
    asyncio.run(closed_loop(server.url + path, bodies, 4, seconds / 2))
    return {n: asyncio.run(closed_loop(server.url + path, bodies, n, seconds, keep=keep)) for n in _CLIENTS}


def _recall(load: Load, corpus: Corpus) -> float:
    exact = np.argsort(-(corpus.queries @ corpus.vectors.T), axis=1)[:, :_NEAREST]
    shares = []
    for number, body in dict(load.answers).items():
        (hits,) = json.loads(body)["results"]
        shares.append(len({h["id"] for h in hits} & {f"p{row}" for row in exact[number]}) / _NEAREST)
    return float(np.mean(shares))


def _pace(work: Callable[[], int], seconds: float) -> float:
    """Return how much work is done in a second."""
    work()
    began, done = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        done += work()
    return done / took


def _limits(
    folder: Path, corpus: Corpus, manifest: IndexManifest, model: ResolvedModel, seconds: float
) -> dict[str, float]:
    """Return requests per second of each part alone."""
    import faiss

    encoder = open_encoder(model)
    ids = [t.ids for t in encoder.tokenise(corpus.query_texts[:256])]
    starts = iter(range(10**9))

    def encode_some() -> int:
        at = next(starts) * 16 % (len(ids) - 15) if len(ids) > 16 else 0
        return len(encoder.encode(ids[at : at + 16]))

    faiss.omp_set_num_threads(1)
    index = open_index(folder / "index" / manifest.version, model.fingerprint)

    def search_one() -> int:
        at = next(starts) % len(corpus.queries)
        return len(index.search(corpus.queries[at : at + 1], _NEAREST)[0])

    bodies = [json.dumps({"query": text, "limit": _NEAREST}).encode() for text in corpus.query_texts]
    port = free_port()
    with process_server([sys.executable, "-m", "benchmarks.endpoints.http_alone", str(port)], port) as server:
        http = asyncio.run(closed_loop(f"{server.url}/v1/search", bodies, 16, seconds)).pace
    return {"encoder": _pace(encode_some, seconds), "index": _pace(search_one, seconds), "HTTP": http}


def _median(loads: list[dict[int, Load]], clients: int, figure: Callable[[Load], float]) -> float:
    return statistics.median(figure(load[clients]) for load in loads)


def _rows(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    seconds, repeats = (0.5, 1) if arguments.quick else (arguments.seconds, arguments.repeats)
    rows = 1500 if arguments.quick else arguments.rows
    model = resolve(_MODEL)
    corpus = read_corpus(folder, arguments.source or ["embedded:sample"], rows, model)
    corpus = corpus._replace(vectors=corpus.vectors[: len(corpus.texts)])  # only what is a text is served
    served = folder / "served"
    manifest = _index(served, corpus, model)
    bodies = [json.dumps({"query": text, "limit": _NEAREST}).encode() for text in corpus.query_texts]
    ours: dict[str, list[dict[int, Load]]] = {proxy: [] for proxy in arguments.proxies}
    peer: list[dict[int, Load]] = []
    for _ in range(repeats):
        for proxy, found in ours.items():
            with causalneg_server(str(served), proxy=proxy) as server:
                found.append(_loads(server, "/v1/search", bodies, seconds, keep=True))
        with _fastapi(served, corpus, manifest, model) as server:
            peer.append(_loads(server, "/v1/search", bodies, seconds))
    limits = _limits(served, corpus, manifest, model, seconds)
    out: list[Row] = []
    name = "FastAPI, sentence-transformers, flat FAISS"
    for proxy, found in ours.items():
        label = "" if proxy == arguments.proxies[0] else f", proxy {proxy}"
        for clients in _CLIENTS:
            mine, other = (
                _median(found, clients, lambda load: load.pace),
                _median(peer, clients, lambda load: load.pace),
            )
            goal = 4.0 if clients == 16 else None
            out.append(
                Row(
                    f"requests/s against FastAPI, {clients} clients{label}",
                    "requests/s",
                    mine,
                    name,
                    other,
                    mine / other,
                    goal,
                )
            )
            p50, its = (_median(x, clients, lambda load: load.percentile(50)) for x in (found, peer))
            out.append(Row(f"p50, {clients} clients{label}", "ms", p50, name, its, its / p50))
        p50 = _median(found, 1, lambda load: load.percentile(50))
        pace = _median(found, 16, lambda load: load.pace)
        recall = statistics.median(_recall(f[1], corpus) for f in found)
        out.append(Row(f"p50{label}", "ms, 1 client", p50, "asked for", 5.0, 5.0 / p50, 1.0))
        out.append(Row(f"requests/s{label}", "16 clients", pace, "asked for", 400.0, pace / 400.0, 1.0))
        out.append(Row(f"recall@10{label}", f"share, {manifest.kind}", recall, "exact search", 1.0, recall, 0.95))
        for part, limit in limits.items():
            out.append(
                Row(f"requests/s of the {part} alone{label}", "requests/s", pace, f"{part} alone", limit, pace / limit)
            )
    if arguments.infinity:
        out += _embeddings(served, corpus, model, arguments, seconds, repeats)
    return out


def _embeddings(
    served: Path, corpus: Corpus, model: ResolvedModel, arguments: argparse.Namespace, seconds: float, repeats: int
) -> list[Row]:
    """Measure `/v1/embeddings` against infinity's."""
    bodies = [json.dumps({"input": [text], "model": "m"}).encode() for text in corpus.query_texts]
    ours, peer = [], []
    for _ in range(repeats):
        with causalneg_server(str(served), proxy=arguments.proxies[0]) as server:
            ours.append(_loads(server, "/v1/embeddings", bodies, seconds))
        with _infinity(arguments.infinity, model) as server:
            peer.append(_loads(server, "/embeddings", bodies, seconds))
    out = []
    for clients in _CLIENTS:
        mine, other = _median(ours, clients, lambda load: load.pace), _median(peer, clients, lambda load: load.pace)
        out.append(Row(f"embeddings/s, {clients} clients", "requests/s", mine, "infinity, torch", other, mine / other))
    return out


def main() -> None:
    """Measure all servers and publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", action="append", help="data set, as for `causalneg import`; may be repeated")
    parser.add_argument("--rows", type=int, default=100_000, help="passages")
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--proxies", nargs="+", default=["haproxy", "ray"], choices=["haproxy", "ray"])
    parser.add_argument("--infinity", help="the program infinity_emb, in an environment of its own")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="half a second of each: does it run, not what it gives")
    parser.add_argument("--workspace", help="where to work; a temporary folder when unset")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.proxies = ["ray"]
    with tempfile.TemporaryDirectory(prefix="causalneg-serving-") as temporary:
        rows = _rows(arguments, Path(arguments.workspace or temporary))
    publish("serving", rows, Reporter(), arguments.results)


if __name__ == "__main__":
    main()
