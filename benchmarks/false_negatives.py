"""How well relabel finds the mined negatives that answer their query: precision and recall against a reader's verdicts.

    python -m benchmarks.false_negatives --data DIR [--url URL --llm MODEL]

`recordings/false_negatives.jsonl.gz` holds, for queries of squad and msmarco and for three built-in ones, which
passages were mined for each, which of them a reader found to answer it with its positive and reference answer at hand,
and what a strong judge answered to the very prompt of relabel. The texts come from the zips. Without `--url` those
answers are replayed; with it another judge is asked.
"""

import argparse
import asyncio
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, Row, publish
from benchmarks.endpoints.replay import MODEL, replaying
from benchmarks.experiment.given import json_rows
from causalneg.config import load_config
from causalneg.console import own_terminal
from causalneg.errors import UserError
from causalneg.generation.capability import built_in
from causalneg.generation.prompts import RELABEL, prompts_version
from causalneg.generation.relabel.job import prepare, shown_queries
from causalneg.generation.relabel.rows import Drafts, Judged
from causalneg.generation.relabel.worker import RelabelWorker
from causalneg.generation.rows import Usage
from causalneg.records import Answering, Mined, Passage, Qrel, Query, Record, Relabelled
from causalneg.workspace import Counts, Workspace

RECORDING = Path(__file__).parent / "recordings" / "false_negatives.jsonl.gz"
BUILT_IN = "built-in"


class Known(Record):
    """A query with its mined passages.

    Attributes:
        data: the set it is of.
        truth: by passage, what a reader found; those that are not there don't answer.
        key: of the request that was answered, see `benchmarks.endpoints.replay`.
        content: of the judge's answer, as it was given.
    """

    data: str
    query_id: str
    candidates: list[str]
    truth: dict[str, Answering]
    key: str
    content: str


def read_recording(path: Path = RECORDING) -> list[Known]:
    """Read the recorded queries."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [Known.model_validate_json(line) for line in file]


def texts_of(data: str, known: Sequence[Known], folder: Path | None) -> tuple[dict[str, Query], dict[str, Passage]]:
    """Return the queries and passages of a set by their ids."""
    if data == BUILT_IN:
        rows = built_in()
        own = {row.id: Passage(id=row.id, title=row.title, text=row.text) for row in rows}
        for row in rows:
            changed = (Passage(id=f"{row.id}-{n}", text=c.text) for n, c in enumerate(row.counterfactuals))
            own |= {p.id: p for p in changed}
        return {row.id: Query(id=row.id, text=row.query) for row in rows}, own
    if folder is None:
        raise UserError(f"The texts of {data} are in {data}.zip; name its folder by --data.")
    wanted = {row.query_id for row in known}, {i for row in known for i in row.candidates}
    names = ("queries.jsonl", "corpus.jsonl")
    queries, passages = (
        {row["_id"]: row for row in json_rows(folder / f"{data}.zip", name) if row["_id"] in ids}
        for name, ids in zip(names, wanted, strict=True)
    )
    return (
        {i: Query(id=i, text=row["text"]) for i, row in queries.items()},
        {i: Passage(id=i, title=row.get("title", ""), text=row["text"]) for i, row in passages.items()},
    )


def write_workspace(folder: Path, known: Sequence[Known], data: Path | None) -> Workspace:
    """Write a workspace as import and mine would, of the recorded queries and passages alone."""
    workspace = Workspace(str(folder))
    queries, passages = texts_of(known[0].data, known, data)
    stage = workspace.begin("import", {"recording": [row.key for row in known]}, [])
    used = sorted({i for row in known for i in row.candidates})
    stage.workspace.write_rows("corpus", "part-0", Passage, [passages[i] for i in used])
    stage.workspace.write_rows("queries", "part-0", Query, [queries[row.query_id] for row in known])
    # The positives are not looked at; any passage stands for them.
    qrels = [Qrel(query_id=row.query_id, passage_id=row.candidates[0]) for row in known]
    stage.workspace.write_rows("qrels", "part-0", Qrel, qrels)
    stage.finish(Counts(rows_in=len(known), accepted=len(known)))
    stage = workspace.begin("mine", {}, ["import"])
    rows = [
        Mined(query_id=row.query_id, passage_id=i, dense_score=0.0, positive_score=0.0, verdict="accepted")
        for row in known
        for i in row.candidates
    ]
    stage.workspace.write_rows("mined", "part-0", Mined, rows)
    stage.finish(Counts(rows_in=len(rows), accepted=len(rows)))
    return workspace


def rates(truth: set[tuple[str, str]], found: set[tuple[str, str]]) -> tuple[float, float]:
    """Return precision and recall; 1 where there is nothing to be wrong about."""
    right = len(truth & found)
    return (right / len(found) if found else 1.0), (right / len(truth) if truth else 1.0)


def rate_rows(name: str, known: Sequence[Known], judged: Sequence[Relabelled]) -> list[Row]:
    """Return the rows of a set; the peer leaves out as many at random."""
    pairs = [(row.query_id, i) for row in known for i in row.candidates]
    rows = []
    for what, counted in (("answers or partly", {"answers", "partly"}), ("answers", {"answers"})):
        truth = {(row.query_id, i) for row in known for i, a in row.truth.items() if a in counted}
        found = {(r.query_id, r.passage_id) for r in judged if r.answering in counted}
        precision, recall = rates(truth, found)
        base, share = len(truth) / len(pairs), len(found) / len(pairs)
        of = f"{name}, {what} ({len(truth)} of {len(pairs)})"
        rows.append(Row(f"{of}: precision", "share", precision, "at random", base, precision / base if base else 1.0))
        rows.append(Row(f"{of}: recall", "share", recall, "at random", share, recall / share if share else 1.0))
    return rows


def _judge(workspace: Workspace, url: str, llm: str) -> list[Judged]:
    """Judge as the stage does, in this process."""
    settings = {"engine.url": url, "judge_llm": llm, "check": False}
    job = prepare(load_config(None, {f"relabel.{name}": value for name, value in settings.items()}), workspace)
    drafts = Drafts(workspace, job.key)
    if drafts.counts() is None:
        drafts.write(shown_queries(workspace, job.settings.candidates), job.settings.engine.batch_pairs)

    async def work() -> list[Judged]:
        worker = RelabelWorker(job)
        try:
            made = await asyncio.gather(*(worker.work(batch) for batch in drafts.batches()))
        finally:
            await worker.close()
        return [row for rows in made for row in rows]

    judged = asyncio.run(work())
    for row in judged:
        if row.failure:
            raise UserError(f"Query {row.query_id} was not judged: {row.failure.message}.")
    return judged


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """Judge every set and compare with the reader's verdicts."""
    known, rows, wrong = read_recording(), list[Row](), list[dict[str, str]]()
    sets = [BUILT_IN] if arguments.quick or not arguments.data else ["squad", "msmarco"]
    judged: list[Relabelled] = []
    spent = Usage()
    for name in sets:
        own = [row for row in known if row.data == name]
        workspace = write_workspace(folder / f"false-negatives-{name}", own, arguments.data)
        with replaying(RECORDING) as replay:
            made = _judge(workspace, arguments.url or replay, arguments.llm)
        verdicts = [r for row in made for r in row.relabelled]
        spent = sum((row.usage for row in made), spent)
        rows += rate_rows(name, own, verdicts)
        judged += verdicts
        truth = {(row.query_id, i): row.truth.get(i, Answering.NO) for row in own for i in row.candidates}
        wrong += [
            {"set": name, "query": r.query_id, "passage": r.passage_id, "reader": a.value, "judge": r.answering.value}
            for r in verdicts
            if (a := truth[r.query_id, r.passage_id]) != r.answering
        ]
    of = [row for row in known if row.data in sets]
    if len(sets) > 1:
        rows += rate_rows("all", of, judged)
    candidates, tokens = sum(len(row.candidates) for row in of), spent.prompt_tokens + spent.generated_tokens
    ours, peer = spent.requests / len(of), candidates / len(of)
    rows.append(Row("requests per query", "requests", ours, "one a candidate", peer, peer / ours))
    rows.append(Row("tokens per candidate", "tokens", tokens / candidates, "none", 0.0, 0.0))
    return rows, {"queries": len(of), "prompt": prompts_version(*RELABEL), "judged otherwise": wrong}


def main() -> None:
    """Measure and publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with squad.zip and msmarco.zip; built-in pairs when unset")
    parser.add_argument("--url", help="endpoint of another judge; the recorded answers when unset")
    parser.add_argument("--llm", default=MODEL, help="the judge's name at the endpoint")
    parser.add_argument("--workspace", type=Path, help="folder for the workspaces")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="the built-in pairs")
    arguments = parser.parse_args()
    folder = arguments.workspace or arguments.results / "workspaces"
    with own_terminal(Path(folder) / "logs" / "false_negatives.log") as report:
        rows, details = measure(arguments, Path(folder))
        publish("false_negatives", rows, report, arguments.results, details)


if __name__ == "__main__":
    main()
