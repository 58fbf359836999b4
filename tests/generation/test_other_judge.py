"""A judge of another model than the writer: two endpoints, of which each is asked for what is its own."""

import asyncio
import io
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from generation_samples import PAIR, first_option, is_judgement, verdicts
from makers import openai_error, said
from row_samples import mined
from servers import Endpoint, answer, endpoint

from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.generation.capability import built_in
from causalneg.generation.drafts import Drafts
from causalneg.generation.job import Job, endpoint_of, prepare
from causalneg.generation.run import run
from causalneg.generation.worker import read_capability
from causalneg.records import Mined, Negative, Passage, Qrel, Query
from causalneg.workspace import Counts, Workspace


def models(*names: str) -> bytes:
    return answer(200, {"data": [{"id": name, "owned_by": "test"} for name in names]})


def is_asked_to_judge(body: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    return is_judgement(body["response_format"]["json_schema"]["schema"])


def chats(body: Any) -> bytes:  # noqa: ANN401 - whatever JSON holds
    """Answer by the form that is asked for; tell no likelihoods."""
    if "messages" not in body:
        return answer(404, "no such path")
    schema = body["response_format"]["json_schema"]["schema"]
    if not is_judgement(schema):
        return said(first_option(0, schema).text)
    flat = " ".join(body["messages"][-1]["content"].split())
    met = any(row.text in flat for row in built_in())
    return said(json.dumps(verdicts(schema, "yes", "yes") if met else verdicts(schema)))


def seedless(body: Any) -> bytes:  # noqa: ANN401 - whatever JSON holds
    """Answer likewise, but take no seed."""
    if "seed" in body:
        return openai_error("Unsupported parameter: 'seed'", "unsupported_parameter", "seed")
    return chats(body)


def workspace_of(folder: str) -> Workspace:
    """Write the pair with its mined negatives as a workspace."""
    workspace = Workspace(folder)
    stage = workspace.begin("import", {"import": {"source": "battles"}}, [])
    passages = [PAIR.positive, *PAIR.references]
    stage.workspace.write_rows("corpus", "part-0", Passage, passages)
    stage.workspace.write_rows("queries", "part-0", Query, [PAIR.query])
    qrels = [Qrel(query_id=PAIR.query.id, passage_id=PAIR.positive.id)]
    stage.workspace.write_rows("qrels", "part-0", Qrel, qrels)
    stage.finish(Counts(rows_in=1, accepted=1))
    stage = workspace.begin("mine", {}, ["import"])
    rows = [mined(PAIR.query.id, passage.id) for passage in PAIR.references]
    stage.workspace.write_rows("mined", "part-0", Mined, rows)
    stage.finish(Counts(rows_in=len(rows), accepted=len(rows)))
    return workspace


def config_of(url: str, **settings: Any) -> Config:
    flags = {"engine.url": url, "engine.max_attempts": 1, "mode": "edit", "judge": "auto", **settings}
    return load_config(None, {"llm": "writer", **{f"generate.{name}": value for name, value in flags.items()}})


def posts(server: Endpoint) -> list[Any]:
    """Return the chats that it was asked for."""
    return [request.body for request in server.requests if request.path.endswith("/chat/completions")]


def keys(server: Endpoint) -> set[str]:
    """Return the keys by which it was asked."""
    heads = [line for request in server.requests for line in request.head.split("\r\n")]
    return {line.split(" ", 1)[1] for line in heads if line.lower().startswith("authorization:")}


def test_each_is_asked_for_what_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITERS", "secret-of-writer")
    monkeypatch.setenv("JUDGES", "secret-of-judge")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    planned, finished, again = io.StringIO(), io.StringIO(), io.StringIO()

    async def both() -> tuple[Job, Drafts, Endpoint, Endpoint]:
        async with AsyncExitStack() as open_servers:
            writer = await open_servers.enter_async_context(endpoint(models("writer"), refuses=chats))
            judge = await open_servers.enter_async_context(endpoint(models("strong"), refuses=seedless))
            config = config_of(
                writer.url,
                judge_llm="strong",
                judge_url=judge.url,
                judge_api_key_env="JUDGES",
                **{"engine.api_key_env": "WRITERS"},
            )
            workspace = workspace_of(str(tmp_path))
            plan = config.model_copy(update={"generate": config.generate.model_copy(update={"plan": True})})
            assert await asyncio.to_thread(run, plan, workspace, Reporter(planned)) is None
            asked = len(posts(writer)), len(posts(judge))
            assert await asyncio.to_thread(run, config, workspace, Reporter(finished)) is not None
            await asyncio.to_thread(run, plan, workspace, Reporter(again))
            assert (len(posts(writer)), len(posts(judge))) == asked, "nothing is paid twice"
            job = await asyncio.to_thread(prepare, config, workspace)
            drafts = Drafts(workspace, job.key)
            return job, drafts, writer, judge

    job, drafts, writer, judge = asyncio.run(both())
    assert posts(writer)
    assert not any(is_asked_to_judge(body) for body in posts(writer))
    assert all(is_asked_to_judge(body) for body in posts(judge))
    assert {body["model"] for body in posts(writer)} == {"writer"}
    assert {body["model"] for body in posts(judge)} == {"strong"}
    assert (keys(writer), keys(judge)) == ({"Bearer secret-of-writer"}, {"Bearer secret-of-judge"})

    # The check asks the judge whether it judges; all that was asked is counted.
    workspace = drafts.workspace
    capability = read_capability(job, workspace)
    assert capability is not None
    assert (capability.judged, capability.judge) == (1.0, "yes_no")
    (outcome,) = drafts.read_outcomes("000000").values()
    refused = sum("seed" in body for body in posts(judge))
    assert refused == 1, "the judge's way is found out once"
    assert outcome.requests + capability.usage.requests == len(posts(writer)) + len(posts(judge)) - refused
    assert job.judge is not None
    assert job.judge.dialect(workspace).words() == ["seed is left out"]
    own = endpoint_of(job)
    assert own is not None
    assert own.dialect(workspace).words() == []

    # Its name is told, and no row is of another shape.
    manifest = workspace.require("generate")
    assert manifest.details["judge_llm"] == "strong"
    assert manifest.details["judge_fingerprint"].startswith("strong@")
    assert {n.lineage.model for n in workspace.read_rows("negatives", Negative)} == {"writer"}
    told = " ".join(finished.getvalue().split())
    assert f"strong at {job.judge.settings.url} judges" in told
    assert "as the judge's endpoint wants it, seed is left out" in told

    # Whether all pairs fit into the batch that the plan does, or were done before: it shows what was measured.
    for output in (planned, again):
        told = " ".join(output.getvalue().split())
        assert f"model that judges │ strong at {job.judge.settings.url}" in told
        assert "pairs measured │ 1" in told
        assert "pairs to do │ 0 of 1" in told
        assert f"LLM calls, so far │ {outcome.requests}" in told
        assert f"check of the model, done │ {capability.usage.requests} calls" in told
        assert "judge: 100% of the built-in requirements judged rightly" in told
        assert "mode: " not in told, "it is set, and not by the check"
    assert "doing the first" in planned.getvalue()
    assert "doing the first" not in again.getvalue()


def prepared(folder: Path, config: Callable[[str], Config], *names: str) -> Job:
    async def at_endpoint() -> Job:
        async with endpoint(models(*names)) as server:
            return await asyncio.to_thread(prepare, config(server.url), workspace_of(str(folder)))

    return asyncio.run(at_endpoint())


def test_drafts_depend_on_the_judge_and_on_nothing_where_it_is_the_writer(tmp_path: Path) -> None:
    names = ("writer", "strong")
    plain = prepared(tmp_path / "plain", config_of, *names)
    same = prepared(tmp_path / "same", lambda url: config_of(url, judge_llm="writer", judge_url=url), *names)
    other = prepared(tmp_path / "other", lambda url: config_of(url, judge_llm="strong"), *names)
    assert plain.judge is None
    assert (same.judge, same.key, same.capability_file) == (None, plain.key, plain.capability_file)
    assert other.judge is not None
    assert (other.judge.llm, other.judge.settings.url) == ("strong", other.settings.engine.url)
    assert other.key != plain.key
    assert other.capability_file != plain.capability_file


def test_a_judge_that_its_endpoint_has_not_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no model 'stronger'"):
        prepared(tmp_path, lambda url: config_of(url, judge_llm="stronger"), "writer", "strong")


@pytest.mark.parametrize(
    ("settings", "said_of_it"),
    [
        ({"judge_llm": "strong"}, "set judge_url, or engine.url"),
        ({"judge_url": "http://127.0.0.1:1/v1", "judge": "likelihood"}, "judge likelihood asks no judge"),
        (
            {"judge_url": "http://127.0.0.1:1/v1", "engine.replicas": 2, "engine.requests_per_minute": 9},
            "limits per minute of judge_url",
        ),
    ],
)
def test_settings_that_cannot_hold_together_are_refused(settings: dict[str, Any], said_of_it: str) -> None:
    with pytest.raises(UserError, match=said_of_it):
        load_config(None, {f"generate.{name}": value for name, value in settings.items()})
