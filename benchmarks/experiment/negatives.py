"""The generated negatives that arms are given: of the stage generate, of files, or naive ones of the same LLM."""

import asyncio
import io
import json
import multiprocessing
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from causalneg.config import Config
from causalneg.generation.job import Job, prepare, start_engine
from causalneg.generation.pairs import train_pairs
from causalneg.records import Lineage, Negative, ViolationType, content_id
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


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a JSONL file, or of the only one in a zip."""
    if path.suffix != ".zip":
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
        return
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".jsonl"))
        with io.TextIOWrapper(archive.open(name), encoding="utf-8") as file:
            yield from map(json.loads, file)


def _negative(pair: Pair, text: str, model: str, **facts: Any) -> Negative:
    """Return a row for a text that no stage made; what does not apply is empty, and a violation must be named."""
    lineage = Lineage(
        model=model, model_fingerprint="", prompt_version="", profile="", seed=0, temperature=0.0, max_tokens=0
    )
    values = {
        "requirement_id": 0,
        "requirement": "",
        "violation": ViolationType.INTENT_DRIFT,
        "explanation": "",
    } | facts
    return Negative(
        id=content_id("adopted", pair, text, model),
        query_id=pair[0],
        positive_id=pair[1],
        analysis_id="",
        text=text,
        mode="rewrite",
        origin="from_scratch",
        lineage=lineage,
        verdict="accepted",
        **values,
    )


def _grouped(rows: Iterable[Negative]) -> Negatives:
    found: Negatives = {}
    for row in rows:
        found.setdefault((row.query_id, row.positive_id), []).append(row)
    return found


def stage_negatives(workspace: Workspace) -> Negatives:
    """Return the accepted negatives of the stage generate, the preferred first."""
    return _grouped(row for row in workspace.read_rows("negatives", Negative) if row.verdict == "accepted")


def written_negatives(path: Path, kind: str) -> Negatives:
    """Read negatives with their analyses: a row per pair, with lists `counterfactual` (objects) and `naive` (texts)."""

    def of(row: dict[str, Any]) -> Iterator[Negative]:
        pair = row["query_id"], row["positive_id"]
        requirements = {r["id"]: r["content"] for r in row["analysis"]["requirements"]}
        for item in row[kind]:
            if kind == "naive":
                yield _negative(pair, item, path.name)
                continue
            number = item["requirement"]
            facts = {"requirement_id": number, "requirement": requirements[number], "explanation": item["why"]}
            yield _negative(pair, item["text"], path.name, violation=ViolationType(item["violation"]), **facts)

    return _grouped(negative for row in json_rows(path) for negative in of(row))


def listed_negatives(path: Path, workspace: Workspace) -> Negatives:
    """Read naive negatives: a row per text, `counterfactual`, with `meta.query-id`; the query's first positive's."""
    positives = workspace.positives("train")
    return _grouped(
        _negative((query, positives[query][0]), row["counterfactual"], path.name)
        for row in json_rows(path)
        if (query := row["meta"]["query-id"]) in positives
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
            _negative((p.query.id, p.positive.id), text, config.llm)
            for p, text in zip(asked, texts, strict=True)
            if len(text.split()) >= _NAIVE_WORDS
        ]
        folder, file = name.removesuffix(".parquet").rsplit("/", 1)
        workspace.write_rows(folder, file, Negative, rows)
    return _grouped(workspace.read_file(name, Negative))
