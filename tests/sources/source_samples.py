"""What the tests of the import share: a small data set, and how it is imported and read back."""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.records import Passage, Qrel, Query, Rejected
from causalneg.sources.run import run
from causalneg.workspace import Manifest, Workspace

CORPUS = [
    {"_id": "d1", "title": "Apollo 8", "text": "It circled the Moon."},
    {"_id": "d2", "title": "", "text": "Eagle landed — «ü» 🚀."},
    {"_id": 3, "text": "A third one.", "metadata": {"url": "x"}},
]
QUERIES = [{"_id": f"q{n}", "text": f"query {n}?"} for n in range(6)]
TRAIN = "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td1\t1\n" for n in range(4)) + "q0\td2\t0\n"
TEST = "query-id\tcorpus-id\tscore\nq4\t3\t2\n"


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_beir(
    folder: Path, corpus: list[dict[str, Any]], queries: list[dict[str, Any]], qrels: dict[str, str]
) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(lines(corpus), encoding="utf-8")
    (folder / "queries.jsonl").write_text(lines(queries), encoding="utf-8")
    for split, content in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text(content)
    return folder


def zipped(folder: Path, prefix: str) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def imported(workspace: Workspace, source: Path | str, report: Reporter | None = None, **flags: object) -> Manifest:
    settings = {"import.source": str(source)} | {name.replace("__", "."): value for name, value in flags.items()}
    made = run(load_config(flags=settings), workspace, report or Reporter(io.StringIO()))
    assert_adds_up(made, workspace)
    return made


def rows(workspace: Workspace) -> tuple[list[Passage], list[Query], list[Qrel]]:
    read = workspace.read_rows
    return list(read("corpus", Passage)), list(read("queries", Query)), list(read("qrels", Qrel))


def rejected(workspace: Workspace) -> list[Rejected]:
    return list(workspace.read_rows("rejected", Rejected))


def texts(workspace: Workspace) -> list[tuple[str, str, int, str]]:
    """Return the judgements with the texts of query and passage instead of their ids."""
    corpus, queries, qrels = rows(workspace)
    of = {p.id: p.full_text for p in corpus} | {q.id: q.text for q in queries}
    return [(of[q.query_id], of[q.passage_id], q.score, q.split) for q in qrels]


def outcomes(manifest: Manifest) -> dict[str, int]:
    return dict(manifest.details["outcomes"])


def assert_adds_up(manifest: Manifest, workspace: Workspace) -> None:
    """Every row read is accepted, merged or rejected, and the tables hold what the manifest says."""
    for tally in manifest.details["rows"].values():
        assert tally["read"] == tally["accepted"] + tally["merged"] + tally["rejected"]
    corpus, queries, qrels = rows(workspace)
    for name, found in (("passages", corpus), ("queries", queries), ("judgements", qrels)):
        assert manifest.details["rows"].get(name, {"accepted": 0})["accepted"] == len(found)
    assert len({p.id for p in corpus}) == len(corpus) == manifest.details["passages"]
    assert len({q.id for q in queries}) == len(queries)
    assert {q.query_id for q in qrels} == {q.id for q in queries}
    assert {q.passage_id for q in qrels} <= {p.id for p in corpus}
    assert len({(q.query_id, q.passage_id, q.split) for q in qrels}) == len(qrels)
    left_out = sum(tally["rejected"] for tally in manifest.details["rows"].values())
    assert len(rejected(workspace)) == left_out - manifest.details["outcomes"].get("not_drawn", 0)
    assert all(len(row.excerpt) <= 200 for row in rejected(workspace))
    assert not workspace.exists("building")
