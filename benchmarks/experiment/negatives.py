"""The generated negatives that arms are given: of the stage generate, of files, or naive ones of the same LLM."""

import asyncio
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.experiment.given import given_negative, json_rows
from causalneg.config import Config
from causalneg.generation.job import Job, prepare, start_engine
from causalneg.generation.pairs import train_pairs
from causalneg.records import Negative, ViolationType, content_id
from causalneg.workspace import Workspace

Pair = tuple[str, str]
"""Ids of a query and one of its positives."""
Negatives = dict[Pair, list[Negative]]

_NAIVE = "naive"  # folder of the workspace
_NAIVE_TOKENS, _NAIVE_TEMPERATURE, _NAIVE_WORDS = 160, 0.7, 5
_NAIVE_REQUEST = (
    "Passage:\n{positive}\n\nThe passage above answers this query: {query}\n\n"
    "Write a hard negative for this query: a passage of about the same length on the same topic that looks relevant "
    "but does not answer the query. Write the passage only."
)


def _grouped(rows: Iterable[Negative]) -> Negatives:
    found: Negatives = {}
    for row in rows:
        found.setdefault((row.query_id, row.positive_id), []).append(row)
    return found


def stage_negatives(workspace: Workspace) -> Negatives:
    """Return the accepted negatives of the stage generate, the preferred first."""
    return _grouped(row for row in workspace.read_rows("negatives", Negative) if row.verdict == "accepted")


def written_negatives(path: Path, kind: str, workspace: Workspace) -> Negatives:
    """Read negatives with their analyses: a row per pair, with lists `counterfactual` (objects) and `naive` (texts)."""
    rows = list(json_rows(path))
    positives = workspace.passages({row["positive_id"] for row in rows})

    def of(row: dict[str, Any]) -> Iterator[Negative]:
        pair = row["query_id"], positives[row["positive_id"]]
        requirements = {r["id"]: r["content"] for r in row["analysis"]["requirements"]}
        for item in row[kind]:
            if kind == "naive":
                yield given_negative(*pair, item, path.name)
                continue
            number = item["requirement"]
            facts = {"requirement_id": number, "requirement": requirements[number], "explanation": item["why"]}
            yield given_negative(*pair, item["text"], path.name, violation=ViolationType(item["violation"]), **facts)

    return _grouped(negative for row in rows for negative in of(row))


def listed_queries(path: Path) -> set[str]:
    """Return the ids of the queries that a file has naive negatives of."""
    return {row["meta"]["query-id"] for row in json_rows(path)}


def listed_negatives(path: Path, workspace: Workspace) -> Negatives:
    """Read naive negatives: a row per text, `counterfactual`, with `meta.query-id`; the query's first positive's."""
    first = {query: own[0] for query, own in workspace.positives("train").items()}
    rows = [row for row in json_rows(path) if row["meta"]["query-id"] in first]
    positives = workspace.passages({first[row["meta"]["query-id"]] for row in rows})
    return _grouped(
        given_negative(query, positives[first[query]], row["counterfactual"], path.name)
        for row in rows
        for query in (row["meta"]["query-id"],)
    )


async def _ask(job: Job, chats: Sequence[str], seed: int) -> list[str]:
    engine = start_engine(job)
    try:
        answers = await asyncio.gather(
            *(
                engine.complete([{"role": "user", "content": c}], None, _NAIVE_TOKENS, _NAIVE_TEMPERATURE, seed + n)
                for n, c in enumerate(chats)
            )
        )
    finally:
        await engine.close()
    return [answer.text.strip() for answer in answers]


def _answers(job: Job, chats: Sequence[str], seed: int) -> list[str]:
    return asyncio.run(_ask(job, chats, seed))


def naive_negatives(config: Config, workspace: Workspace, pairs: Iterable[Pair], number: int) -> Negatives:
    """Let the LLM write negatives when simply asked for them, with no analysis and no check; kept in the workspace.

    The engine runs in a process of its own, so that its memory is free afterwards.
    """
    wanted = set(pairs)
    name = f"{_NAIVE}/{content_id(sorted(wanted), number, config.llm, config.seed, _NAIVE_REQUEST)}.parquet"
    if not workspace.exists(name):
        asked = [p for p in train_pairs(workspace) if (p.query.id, p.positive.id) in wanted for _ in range(number)]
        chats = [_NAIVE_REQUEST.format(positive=p.positive.full_text, query=p.query.text) for p in asked]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            texts = process.submit(_answers, prepare(config, workspace), chats, config.seed).result()
        rows = [
            given_negative(p.query.id, p.positive, text, config.llm)
            for p, text in zip(asked, texts, strict=True)
            if len(text.split()) >= _NAIVE_WORDS
        ]
        folder, file = name.removesuffix(".parquet").rsplit("/", 1)
        workspace.write_rows(folder, file, Negative, rows)
    return _grouped(workspace.read_file(name, Negative))
