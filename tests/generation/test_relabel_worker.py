"""Batches of queries at an endpoint that judges by a rule: what fails is a row, and nothing is paid for twice."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from generation_samples import ScriptedEngine
from relabel_samples import FALSE, QUERIES, Judge, answer_to, judging, mined_workspace, passage_id

from causalneg.config import EngineSettings, load_config
from causalneg.errors import UserError
from causalneg.generation.engines import Completion, EngineDeadError, EngineError
from causalneg.generation.relabel.job import RelabelJob, prepare, shown_queries
from causalneg.generation.relabel.rows import Drafts, Judged, stop_where_all_failed
from causalneg.generation.relabel.worker import RelabelWorker, judge
from causalneg.generation.survival import MOST_DEATHS
from causalneg.workspace import Workspace

BATCH = 3


def job_at(server: Judge, workspace: Workspace, **settings: Any) -> tuple[RelabelJob, Drafts]:
    flags = {"engine.url": server.url, "engine.max_attempts": 2, "check": False, **settings}
    config = load_config(None, {"llm": "judge", **{f"relabel.{name}": value for name, value in flags.items()}})
    job = prepare(config, workspace)
    drafts = Drafts(workspace, job.key)
    drafts.write(shown_queries(workspace, job.settings.candidates), BATCH)
    return job, drafts


def work(job: RelabelJob, drafts: Drafts, batches: list[str] | None = None) -> list[Judged]:
    async def all_batches() -> list[Judged]:
        worker = RelabelWorker(job)
        made = await asyncio.gather(*(worker.work(batch) for batch in batches or drafts.batches()))
        await worker.close()
        return [row for rows in made for row in rows]

    return asyncio.run(all_batches())


def test_every_candidate_gets_a_verdict_with_one_request_a_query(tmp_path: Path) -> None:
    with judging() as server:
        job, drafts = job_at(server, mined_workspace(str(tmp_path)))
        rows = work(job, drafts)
        assert sorted(server.asked) == list(range(QUERIES))
    assert drafts.counts() == {"queries": QUERIES, "candidates": 5 * QUERIES}
    for number, row in enumerate(rows):
        assert [r.passage_id for r in row.relabelled] == [passage_id(number, c) for c in range(5)]
        assert {c: r.answering.value for c, r in enumerate(row.relabelled) if r.answering != "no"} == FALSE
        assert [bool(r.reason) for r in row.relabelled] == [c in FALSE for c in range(5)]
        assert (row.usage.requests, row.usage.prompt_tokens, row.usage.generated_tokens) == (1, 100, 10)


def test_the_best_candidates_are_judged_where_fewer_are_asked_for(tmp_path: Path) -> None:
    with judging() as server:
        job, drafts = job_at(server, mined_workspace(str(tmp_path)), candidates=2)
        rows = work(job, drafts)
    assert [[r.passage_id for r in row.relabelled] for row in rows[:1]] == [["m0-0", "m0-1"]]


def test_a_query_that_fails_is_a_row_and_is_tried_again_alone(tmp_path: Path) -> None:
    with judging() as server:
        server.garbled = {4}
        job, drafts = job_at(server, mined_workspace(str(tmp_path)))
        rows = work(job, drafts)
        failed = rows[4].failure
        assert failed is not None
        assert (failed.stage, failed.input_id, failed.kind) == ("relabel", "q4", "invalid_judgement")
        assert (failed.retryable, failed.attempts, rows[4].usage.requests) == (True, 2, 2)
        assert "reasons are given for none, and 2, 4 answer" in failed.message
        assert [row.failure for row in rows].count(None) == QUERIES - 1
        assert drafts.unfinished()[0] == []

        server.garbled, server.asked = set(), []
        assert drafts.forget_failures() == 1
        assert drafts.unfinished()[0] == ["000001"]
        again = work(job, drafts)
        assert server.asked == [4]
        assert again[4].failure is None
        assert [r for r in again if r.query_id != "q4"] == [r for r in rows if r.query_id != "q4"]
        assert drafts.forget_failures() == 0


def test_an_answer_is_kept_at_once_and_not_with_its_batch(tmp_path: Path) -> None:
    """As a kill would find it: the answers to two of three queries are there while the third is waited for."""
    with judging() as server:
        server.held = {1}
        job, drafts = job_at(server, mined_workspace(str(tmp_path)))

        async def cut_off() -> None:
            task = asyncio.create_task(RelabelWorker(job).work("000000"))
            while len(drafts.judged("000000")) < BATCH - 1:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(cut_off())
        assert set(drafts.judged("000000")) == {"q0", "q2"}
        server.let_go.set()
        server.held, server.asked = set(), []
        work(job, drafts, ["000000"])
        assert set(server.asked) == {1}


def test_a_query_that_kills_the_engine_is_set_aside_and_no_other(tmp_path: Path) -> None:
    deaths = 0

    class Mortal(ScriptedEngine):
        async def complete(self, chat: list[dict[str, str]], *rest: Any, **more: Any) -> Completion:
            nonlocal deaths
            if "number 4?" in chat[-1]["content"]:
                deaths += 1
                raise EngineDeadError("the engine is gone")
            return Completion(json.dumps(answer_to(chat[-1]["content"])), "stop", 9, 0, 9)

    with judging() as server:
        job, drafts = job_at(server, mined_workspace(str(tmp_path)))

    async def all_batches() -> None:
        worker = RelabelWorker(job, lambda _: Mortal(lambda *_: Completion("", "stop", 0, 0, 0)))
        await asyncio.gather(*(worker.work(batch) for batch in drafts.batches()))

    asyncio.run(all_batches())
    left, done = drafts.unfinished()
    assert left == []
    assert {row.query_id: row.failure.kind for row in done if row.failure} == {"q4": "engine_killed"}
    assert deaths == MOST_DEATHS
    assert drafts.forget_failures() == 0


def test_a_model_that_judges_badly_is_refused_unless_the_user_says_so(tmp_path: Path) -> None:
    with judging() as server:
        server.wrong = True
        job, drafts = job_at(server, mined_workspace(str(tmp_path)), check=True)
        with pytest.raises(UserError, match=r"judge judges 50% .* 80% are asked .*--judge-llm.*--check false"):
            work(job, drafts)
        assert set(server.asked) == {-1}, "no query is paid for"
        server.asked = []
        with pytest.raises(UserError, match="judge judges 50%"):
            work(job, drafts)
        assert server.asked == [], "what was found out is remembered"
        work(replace(job, settings=job.settings.model_copy(update={"check": False})), drafts)
        assert sorted(server.asked) == list(range(QUERIES))


def test_a_model_that_judges_well_is_taken(tmp_path: Path) -> None:
    with judging() as server:
        job, drafts = job_at(server, mined_workspace(str(tmp_path)), check=True)
        assert [row.failure for row in work(job, drafts)] == [None] * QUERIES


def test_a_query_that_is_too_long_says_what_to_set(tmp_path: Path) -> None:
    def too_long(*_: object) -> Completion:
        raise EngineError("too_long", "the prompt has 9000 tokens of 2048", retryable=False)

    shown = next(shown_queries(mined_workspace(str(tmp_path)), 5))
    row = asyncio.run(judge(shown, ScriptedEngine(too_long), 64, EngineSettings().max_attempts))
    assert row.failure is not None
    assert row.failure.message == (
        "the prompt has 9000 tokens of 2048; set a smaller --candidates, or a larger --engine.max-model-len"
    )
    workspace = mined_workspace(str(tmp_path / "again"))
    drafts = Drafts(workspace, "key")
    drafts.write([shown], BATCH)
    drafts.keep("000000", [row])
    assert drafts.forget_failures() == 1, "with a longer engine it may do better"


def test_where_no_query_can_be_judged_the_stage_stops_and_the_next_run_tries_all_again(tmp_path: Path) -> None:
    with judging() as server:
        server.garbled = set(range(QUERIES))
        job, drafts = job_at(server, mined_workspace(str(tmp_path)))
        work(job, drafts)
        with pytest.raises(UserError, match=r"No query could be judged: reasons are given for none.*Mend that"):
            stop_where_all_failed(drafts)
        assert len(drafts.unfinished()[0]) == len(drafts.batches())
        server.garbled = {0}
        work(job, drafts)
        stop_where_all_failed(drafts)
