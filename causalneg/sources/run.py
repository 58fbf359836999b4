"""The import stage: reads a data set and writes it to the workspace in one form."""

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.files import file_sha256
from causalneg.records import Passage, Qrel, Query
from causalneg.sources.beir import read_beir
from causalneg.sources.data import Data, Judged
from causalneg.sources.pairs import read_pairs
from causalneg.workspace import PART_ROWS, Counts, Manifest, Workspace

SAMPLE = "embedded:sample"


def _locate(source: str) -> Path:
    """Return where a source lies.

    Raises:
        UserError: there is nothing, or nothing that can be read.
    """
    if source == SAMPLE:
        return Path(__file__).parent / "sample"
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"The data {source} does not exist; give --source a BEIR folder or zip, or a JSONL file.")
    if not path.is_dir() and path.suffix not in (".zip", ".jsonl", ".json"):
        raise UserError(f"{source} is no BEIR folder or .zip and no .jsonl file of pairs; convert it to one of them.")
    return path


def _read(path: Path, config: Config) -> Data:
    if path.is_dir() or path.suffix == ".zip":
        return read_beir(path)
    return read_pairs(path, config.import_.test_share, config.seed)


def _content_hash(path: Path) -> str:
    """Return what changes when the data changes: names and checksums of the files that are read."""
    files = sorted(p for p in path.rglob("*") if p.suffix in (".jsonl", ".tsv")) if path.is_dir() else [path]
    return " ".join(f"{p.name}:{file_sha256(p)[:16]}" for p in files)


def _write_passages(workspace: Workspace, passages: Iterable[Passage]) -> set[str]:
    ids: set[str] = set()
    for number, part in enumerate(_chunks(passages, PART_ROWS)):
        ids.update(p.id for p in part)
        workspace.write_rows("corpus", f"part-{number:06d}", Passage, part)
    if not ids:
        raise UserError("The corpus is empty; it needs at least one passage.")
    return ids


def _chunks(rows: Iterable[Passage], size: int) -> Iterator[list[Passage]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _checked(judged: Iterable[Judged], passages: set[str], queries: dict[str, Query]) -> list[Qrel]:
    qrels = []
    for judgement in judged:
        qrel = judgement.qrel
        if qrel.passage_id not in passages:
            raise UserError(f"{judgement.where}: there is no passage {qrel.passage_id!r} in the corpus.")
        if qrel.query_id not in queries:
            raise UserError(f"{judgement.where}: there is no query {qrel.query_id!r} in the queries.")
        qrels.append(qrel)
    if not any(q.score > 0 for q in qrels):
        raise UserError("No query has a positive; the relevance judgements need at least one score above 0.")
    return qrels


def _limited(qrels: list[Qrel], limit: int | None, seed: int) -> list[Qrel]:
    """Keep the train judgements of at most `limit` queries, drawn by seed."""
    train = sorted({q.query_id for q in qrels if q.split == "train"})
    if limit is None or len(train) <= limit:
        return qrels
    kept = set(random.Random(seed).sample(train, limit))  # noqa: S311 - a sample, not a secret
    return [q for q in qrels if q.split != "train" or q.query_id in kept]


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Read the data set into `corpus`, `queries` and `qrels`.

    Raises:
        UserError: the data is missing or broken.
    """
    path = _locate(config.import_.source)  # before begin(): a mistyped name must not cost an earlier import
    determines = {"import": config.import_, "seed": config.seed, "content": _content_hash(path)}
    stage = workspace.begin("import", determines, inputs=[])
    if stage.done:
        report.line(f"import: already done ({stage.done.details['passages']} passages)")
        return stage.done
    data = _read(path, config)
    passages = _write_passages(workspace, data.passages)
    queries = {q.id: q for q in data.queries}
    every = _checked(data.judged, passages, queries)
    qrels = _limited(every, config.import_.max_train_queries, config.seed)
    used = {q.query_id for q in qrels}
    workspace.write_rows("queries", "part-000000", Query, [q for q in queries.values() if q.id in used])
    workspace.write_rows("qrels", "part-000000", Qrel, qrels)
    splits = {s: len({q.query_id for q in qrels if q.split == s}) for s in sorted({q.split for q in qrels})}
    listed = ", ".join(f"{count} {name}" for name, count in splits.items())
    report.line(f"import: {len(passages)} passages, queries: {listed}")
    counts = Counts(rows_in=len(queries), accepted=len(used), rejected=len(queries) - len(used))
    return stage.finish(counts, details={"passages": len(passages), "splits": splits})
