"""Mining against sentence-transformers' mine_hard_negatives with FAISS, and BM25 against bm25s alone.

    python -m benchmarks.mining --source msmarco.zip

Each side runs in a process of its own over the same texts, with the same encoder and settings, one after the other.
A query's negatives are the same when both sides took the same texts. Where they differ by a tie they are counted
apart: every text that only one side took has a score, in fp32, within `_TIE` of the last one that both could take.
Passages encoded with bf16 products have scores that are off by about 0.0003, so such candidates are a matter of luck.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, Row, publish
from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.models import resolve
from causalneg.records import Mined, Query, full_text
from causalneg.workspace import Workspace

_NEGATIVES, _RANGE, _MARGIN = 15, 50, 0.05
_TIE = 0.002  # of a cosine
_QUICK_QUERIES = 20
_MIB = 1024


def _config(workspace: str, precision: str) -> Config:
    flags = {
        "workspace": workspace,
        "encode.precision": precision,
        "mine.search.sources": ["dense"],
        "mine.search.depth": _RANGE + _most_positives(Workspace(workspace)),
        "mine.num_negatives": _NEGATIVES,
        "mine.relative_margin": _MARGIN,
        "mine.near_duplicate": None,
    }
    return load_config(flags=flags)


def _most_positives(workspace: Workspace) -> int:
    return max(map(len, workspace.positives("train").values()))


def _data(workspace: Workspace) -> tuple[list[str], list[str], dict[str, str], dict[str, list[str]]]:
    """Return passage ids, their texts, the train queries' texts, and their positives."""
    ids = workspace.column("corpus", "id").to_pylist()
    titles = workspace.column("corpus", "title").to_pylist()
    texts = [full_text(a, b) for a, b in zip(titles, workspace.column("corpus", "text").to_pylist(), strict=True)]
    positives = workspace.positives("train")
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query) if q.id in positives}
    return ids, texts, queries, positives


# Each of these runs in a process of its own and returns the texts it took, by query.


def _ours(workspace: str, precision: str) -> dict[str, list[str]]:
    from causalneg.mining.run import run

    run(_config(workspace, precision), Workspace(workspace), Reporter())
    return {}


def _peer(workspace: str, precision: str) -> dict[str, list[str]]:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    ids, texts, queries, positives = _data(Workspace(workspace))
    text_of = dict(zip(ids, texts, strict=True))
    pairs = [(queries[q], text_of[p]) for q, own in positives.items() for p in own]
    dataset = Dataset.from_dict({"query": [q for q, _ in pairs], "positive": [p for _, p in pairs]})
    model = SentenceTransformer(str(resolve("embedded:minilm-l6").path), local_files_only=True)
    mined = mine_hard_negatives(
        dataset,
        model,
        corpus=texts,
        range_max=_RANGE,
        relative_margin=_MARGIN,
        num_negatives=_NEGATIVES,
        output_format="triplet",
        use_faiss=True,
        batch_size=32,
        verbose=False,
    )
    taken: dict[str, list[str]] = {}
    for row in mined:
        taken.setdefault(row["query"], []).append(row["negative"])
    return taken


def _our_bm25(workspace: str, precision: str) -> dict[str, list[str]]:
    from causalneg.bm25 import Words
    from causalneg.mining.bm25 import Bm25Index, search

    texts, queries = _data(Workspace(workspace))[1:3]
    started = time.perf_counter()
    words = Words("english")
    with tempfile.TemporaryDirectory() as folder:
        index = Bm25Index(Workspace(folder), "bm25", words)
        index.write(0, texts)
        index.join(1)
        search(index.load(0), words.tokens(list(queries.values()), ids=False), _RANGE)
        seconds = time.perf_counter() - started
    return {"seconds": [str(seconds)]}


def _bm25s_alone(workspace: str, precision: str) -> dict[str, list[str]]:
    import bm25s
    import Stemmer

    texts, queries = _data(Workspace(workspace))[1:3]
    started = time.perf_counter()
    stemmer = Stemmer.Stemmer("english")
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(list(queries.values()), stopwords="en", stemmer=stemmer, show_progress=False)
    index.retrieve(tokens, k=_RANGE, show_progress=False)
    return {"seconds": [str(time.perf_counter() - started)]}


_SIDES: dict[str, Callable[[str, str], dict[str, list[str]]]] = {
    "ours": _ours,
    "peer": _peer,
    "our-bm25": _our_bm25,
    "bm25s": _bm25s_alone,
}


def _child(side: str, workspace: str, precision: str) -> None:
    """Run one side and print what it took, the seconds since the process began its work, and its peak memory."""
    started = time.perf_counter()
    taken = _SIDES[side](workspace, precision)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB
    sys.stdout.write("\n" + json.dumps({"taken": taken, "seconds": seconds, "peak": peak}) + "\n")


def _measured(side: str, workspace: str, precision: str = "auto") -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.mining", "--side", side, "--workspace", workspace]
    done = subprocess.run(  # noqa: S603 - ourselves
        [*command, "--precision", precision], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _our_negatives(workspace: Workspace) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Return the ids taken for each query, and the lowest score among them."""
    taken: dict[str, list[str]] = {}
    cut: dict[str, float] = {}
    for row in workspace.read_rows("mined", Mined):
        taken.setdefault(row.query_id, [])
        if row.verdict == "accepted":
            taken[row.query_id].append(row.passage_id)
            cut[row.query_id] = min(cut.get(row.query_id, 1.0), row.score)
    return taken, cut


def _sameness(workspace: Workspace, exact: Workspace, peer: dict[str, list[str]]) -> tuple[float, float]:
    """Return the share of the queries with the same negatives, strictly, and with ties aside.

    Args:
        workspace: our negatives.
        exact: the same with scores in fp32.
        peer: the peer's, texts by query text.
    """
    ids, texts, queries, _ = _data(workspace)
    text_of = dict(zip(ids, texts, strict=True))
    ours, _ = _our_negatives(workspace)
    _, cut = _our_negatives(exact)
    scores: dict[tuple[str, str], tuple[float, float]] = {}
    for row in exact.read_rows("mined", Mined):
        limit = row.positive_score - _MARGIN * abs(row.positive_score)
        scores[row.query_id, text_of[row.passage_id]] = (row.score, limit)
    strict = tied = 0
    for query, own in ours.items():
        differing = {text_of[p] for p in own} ^ set(peer.get(queries[query], []))
        strict += not differing
        near = 0
        for text in differing:
            score, limit = scores.get((query, text), (9.0, -9.0))
            near += min(abs(score - cut.get(query, 9.0)), abs(score - limit)) <= _TIE
        tied += near == len(differing)
    return strict / len(ours), tied / len(ours)


def _imported(folder: Path, source: str, queries: int | None) -> str:
    from causalneg.sources.run import run

    workspace = str(folder)
    flags = {"workspace": workspace, "import.source": source, "import.max_train_queries": queries}
    flags["import.duplicate_texts"] = "merge"  # the peer searches each text once
    run(load_config(flags=flags), Workspace(workspace), Reporter())
    return workspace


def _rows(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    queries = _QUICK_QUERIES if arguments.quick else None
    fast = _imported(folder / "fast", arguments.source, queries)
    exact = _imported(folder / "exact", arguments.source, queries)
    ours = _measured("ours", fast)
    peer = _measured("peer", fast)
    fp32 = _measured("ours", exact, "fp32")
    strict, tied = _sameness(Workspace(fast), Workspace(exact), peer["taken"])
    strict_fp32, tied_fp32 = _sameness(Workspace(exact), Workspace(exact), peer["taken"])
    bm25 = min(float(_measured("our-bm25", fast)["taken"]["seconds"][0]) for _ in range(3))
    alone = min(float(_measured("bm25s", fast)["taken"]["seconds"][0]) for _ in range(3))
    name = "mine_hard_negatives, FAISS"

    def against(metric: str, unit: str, key: str, side: dict[str, Any], goal: float) -> Row:
        return Row(metric, unit, side[key], name, peer[key], peer[key] / side[key], goal)

    return [
        against("wall time", "s", "seconds", ours, 1.5),
        against("peak memory", "MiB", "peak", ours, 1.0),
        Row("same negatives", "share of queries, ties aside", tied, name, 1.0, tied, 0.99),
        Row("same negatives, ties counted", "share of queries", strict, name, 1.0, strict),
        against("wall time, fp32", "s", "seconds", fp32, 1.5),
        against("peak memory, fp32", "MiB", "peak", fp32, 1.0),
        Row("same negatives, fp32", "share of queries, ties aside", tied_fp32, name, 1.0, tied_fp32, 0.99),
        Row("same negatives, fp32, ties counted", "share of queries", strict_fp32, name, 1.0, strict_fp32),
        Row("BM25, index kept and searched", "s", bm25, "bm25s alone", alone, alone / bm25, 1 / 1.2),
    ]


def main() -> None:
    """Measure both sides and publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default="embedded:sample", help="data set, as for `causalneg import`")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="a few queries only: does it run, not what it gives")
    parser.add_argument("--workspace", help="where to work; a temporary folder when unset")
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="auto", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        _child(arguments.side, arguments.workspace, arguments.precision)
        return
    with tempfile.TemporaryDirectory(prefix="causalneg-mining-") as temporary:
        rows = _rows(arguments, Path(arguments.workspace or temporary))
    publish("mining", rows, Reporter(), arguments.results)


if __name__ == "__main__":
    main()
