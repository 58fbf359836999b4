"""Endpoints of other makers: what one refuses is found out once, replaced or left out, remembered and said."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import makers
import pytest
from makers import said
from servers import Endpoint, Request, answer, endpoint

from causalneg.config import EngineSettings
from causalneg.errors import UserError
from causalneg.generation.engines import Completion, EngineError
from causalneg.generation.engines.dialect import Dialect
from causalneg.generation.engines.http import HttpEngine

SCHEMA = {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}}, "required": ["answer"]}
CHAT = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "Who won?"}]
YES = said('{"answer":"yes"}')
Result = TypeVar("Result")


def with_maker(
    refuses: Callable[[Any], bytes | None],
    work: Callable[[HttpEngine, Endpoint], Awaitable[Result]],
    given: bytes = YES,
    dialect: Dialect | None = None,
    learned: Callable[[Dialect], None] = lambda _: None,
    **settings: Any,
) -> Result:
    async def scenario() -> Result:
        async with endpoint(given, refuses=refuses) as served:
            chosen = EngineSettings(url=served.url, **{"timeout_seconds": 30, "max_attempts": 1, **settings})
            engine = HttpEngine("small", chosen, dialect, learned)
            try:
                return await work(engine, served)
            finally:
                await engine.close()

    return asyncio.run(scenario())


def ask(engine: HttpEngine, schema: dict[str, Any] | None = SCHEMA) -> Awaitable[Completion]:
    return engine.complete(CHAT, schema, 50, 0.5, 3, 5)


@pytest.mark.parametrize(
    ("refuses", "refusals", "ways", "words"),
    [
        (
            makers.openai_o_series,
            3,
            {"max_tokens": 1, "temperature": 1, "logprobs": 1},
            ["max_tokens is sent as max_completion_tokens", "temperature is left out", "logprobs is left out"],
        ),
        (makers.gemini, 1, {"seed": 1, "logprobs": 1}, ["seed is left out", "logprobs is left out"]),
        (
            makers.deepseek,
            3,
            {"response_format": 2, "logprobs": 1},
            ["response_format is sent as json_object, with the schema in the prompt", "logprobs is left out"],
        ),
        (makers.tgi, 3, {"response_format": 3}, ["response_format is left out, with the schema in the prompt"]),
        (makers.fastapi, 1, {"seed": 1}, ["seed is left out"]),
        (lambda _: None, 0, {}, []),
    ],
    ids=["o-series", "gemini", "deepseek", "tgi", "fastapi", "usual"],
)
def test_what_a_maker_refuses_is_found_out_once(
    refuses: Callable[[Any], bytes | None], refusals: int, ways: dict[str, int], words: list[str]
) -> None:
    kept: list[Dialect] = []

    async def work(engine: HttpEngine, served: Endpoint) -> list[Request]:
        assert (await ask(engine)).text == '{"answer":"yes"}'
        assert len(served.requests) == refusals + 1
        await asyncio.gather(*(ask(engine) for _ in range(3)))
        assert len(served.requests) == refusals + 4
        return served.requests

    with_maker(refuses, work, learned=kept.append)
    assert [dialect.ways for dialect in kept] == ([ways] if ways else [])
    assert Dialect(ways=ways).words() == words

    # A run that goes on knows it from the start.
    async def again(engine: HttpEngine, served: Endpoint) -> None:
        await ask(engine)
        assert len(served.requests) == 1

    with_maker(refuses, again, dialect=Dialect(ways=ways))


def test_of_many_requests_at_once_one_finds_out() -> None:
    async def work(engine: HttpEngine, served: Endpoint) -> None:
        found = await asyncio.gather(*(ask(engine) for _ in range(20)))
        assert {completion.text for completion in found} == {'{"answer":"yes"}'}
        assert len(served.requests) == 20 + 3
        assert set(served.requests[-1].body) == {
            "model",
            "messages",
            "seed",
            "max_completion_tokens",
            "response_format",
        }

    with_maker(makers.openai_o_series, work)


def test_the_schema_goes_into_the_prompt_where_nothing_else_holds_it() -> None:
    async def work(engine: HttpEngine, served: Endpoint) -> None:
        await ask(engine)
        body = served.requests[-1].body
        assert "response_format" not in body
        system, user = body["messages"]
        assert json.dumps(SCHEMA) in system["content"]
        assert user == CHAT[1]
        assert CHAT[0]["content"] == "Answer."
        await ask(engine, None)
        assert served.requests[-1].body["messages"] == CHAT

    with_maker(makers.tgi, work)


@pytest.mark.parametrize(
    ("refusal", "requests"),
    [
        (makers.openai_error("temperature is not supported here"), 2),
        (makers.openai_error("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"), 1),
        (makers.openai_error("max_tokens is too large. This model supports at most 40.", None, "max_tokens"), 1),
        (makers.openai_error("The messages are not supported"), 1),
        (
            makers.openai_error(
                "Unsupported parameter: 'reasoning_effort'", "unsupported_parameter", "reasoning_effort"
            ),
            1,
        ),
        (makers.openai_error("max_tokens, seed, response_format, temperature, logprobs: not supported"), 4),
    ],
)
def test_a_refusal_that_stays_ends_and_is_not_remembered(refusal: bytes, requests: int) -> None:
    kept: list[Dialect] = []

    async def work(engine: HttpEngine, served: Endpoint) -> None:
        with pytest.raises(EngineError) as raised:
            await ask(engine)
        assert (raised.value.kind, raised.value.retryable) == ("refused", False)
        assert len(served.requests) == requests
        served.refuses = lambda _: None
        await ask(engine)
        assert set(served.requests[-1].body) >= {"max_tokens", "temperature", "seed", "response_format", "logprobs"}

    with_maker(lambda _: refusal, work, learned=kept.append)
    assert kept == []


def test_more_goes_into_each_chat_and_null_leaves_out() -> None:
    extra = {"reasoning_effort": "low", "temperature": None, "seed": 7}

    async def work(engine: HttpEngine, served: Endpoint) -> None:
        await ask(engine)
        body = served.requests[0].body
        assert (body["reasoning_effort"], body["seed"]) == ("low", 7)
        assert "temperature" not in body

    with_maker(lambda _: None, work, extra_body=extra)


# Models that reason.


def test_thinking_has_a_budget_of_its_own() -> None:
    async def work(engine: HttpEngine, served: Endpoint) -> None:
        await ask(engine)
        assert served.requests[0].body["max_tokens"] == 50 + 4096

    with_maker(lambda _: None, work, reasoning_tokens=4096)


@pytest.mark.parametrize(
    ("given", "text", "finish"),
    [
        (said(None, "length", reasoning_content="Let me think about"), "", "length"),
        (said("", "length", reasoning="Let me"), "", "length"),
        (said("<think>\nLet me think about", "length"), "", "length"),
        (said("<think>\nThe king.\n</think>\n\nHenry V"), "Henry V", "stop"),
        (said("The king.\n</think>\n\nHenry V"), "Henry V", "stop"),
        (said("Henry V", reasoning_content="The king."), "Henry V", "stop"),
        (said([{"type": "thinking", "thinking": []}, {"type": "text", "text": "Henry V"}]), "Henry V", "stop"),  # type: ignore[arg-type]
    ],
)
def test_an_answer_is_what_comes_after_the_thoughts(given: bytes, text: str, finish: str) -> None:
    async def work(engine: HttpEngine, _served: Endpoint) -> None:
        done = await ask(engine)
        assert (done.text, done.finish_reason) == (text, finish)

    with_maker(lambda _: None, work, given)


def test_probabilities_are_those_of_the_answer() -> None:
    tokens = ["<think>", "yes", "</think>", "\n", '{"', "answer", '":"', "yes", '"}', "<eos>"]
    places = [{"token": token, "logprob": 0.0, "top_logprobs": None} for token in tokens]
    choice = {
        "message": {"content": '{"answer":"yes"}', "reasoning_content": "yes"},
        "finish_reason": "stop",
        "logprobs": {"content": places},
    }

    async def work(engine: HttpEngine, _served: Endpoint) -> None:
        found = (await ask(engine)).probabilities
        assert [next(iter(place)) for place in found] == tokens[4:]

    with_maker(lambda _: None, work, answer(200, {"choices": [choice]}))


# Answers.


@pytest.mark.parametrize(
    ("finish", "means"),
    [
        ("eos_token", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("STOP", "stop"),
        ("COMPLETE", "stop"),
        (None, "stop"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("tool_calls", "tool_calls"),
    ],
)
def test_the_ends_that_an_answer_has(finish: str | None, means: str) -> None:
    async def work(engine: HttpEngine, _served: Endpoint) -> None:
        assert (await ask(engine)).finish_reason == means

    with_maker(lambda _: None, work, said("Henry V", finish))


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (
            {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "no GPU"}}},
            "server_error",
            "no GPU",
        ),
        ({"error": {"message": "Slow down", "code": 429}}, "rate_limited", "Slow down"),
        ({"error": {"message": "Bad schema", "code": 400}}, "refused", "Bad schema"),
        ({"error": "Input validation error: too many", "error_type": "validation"}, "refused", "validation: Input"),
        ({"error": "Model is overloaded", "error_type": "overloaded"}, "server_error", "Model is overloaded"),
        ({"error": {"message": "What?"}, "choices": None}, "refused", "What?"),
    ],
)
def test_the_words_of_an_error_with_status_200_reach_the_user(body: dict[str, Any], kind: str, words: str) -> None:
    async def work(engine: HttpEngine, _served: Endpoint) -> None:
        with pytest.raises(EngineError, match=words) as raised:
            await ask(engine)
        assert raised.value.kind == kind

    with_maker(lambda _: None, work, answer(200, body))


def test_a_quota_that_is_used_up_is_no_rate_limit() -> None:
    words = "You exceeded your current quota, please check your plan and billing details."

    async def work(engine: HttpEngine, served: Endpoint) -> None:
        with pytest.raises(UserError, match="exceeded your current quota"):
            await ask(engine)
        assert len(served.requests) == 1

    for code in ("insufficient_quota", None):
        error = {"message": words, "type": "insufficient_quota", "param": None, "code": code}
        with_maker(lambda _: None, work, answer(429, {"error": error}), max_attempts=3)


# Lists of models.


@pytest.mark.parametrize(
    ("listed", "name", "called"),
    [
        ([{"id": "meta/small", "created": 0, "context_length": 8192}], "meta/small", "meta/small"),
        ([{"id": "meta/small"}, {"id": "meta/large"}], "small", "meta/small"),
        ({"data": [{"id": "models/gemini-flash"}]}, "gemini-flash", "gemini-flash"),
        ({"data": [{"id": "gemini-flash"}]}, "models/gemini-flash", "models/gemini-flash"),
        ({"data": [{"id": "small"}]}, "meta/small", "small"),
        ({"object": "list", "models": [{"name": "small"}], "data": [{"id": "small"}]}, "small", "small"),
    ],
)
def test_a_model_is_found_in_each_makers_list(listed: Any, name: str, called: str) -> None:  # noqa: ANN401 - JSON
    async def scenario() -> None:
        async with endpoint(answer(200, listed)) as served:
            engine = HttpEngine(name, EngineSettings(url=served.url))
            told = await engine.describe()
            await engine.close()
            assert (told.name, told.listed) == (called, True)
            assert "@" in told.revision

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "listed", [{"data": [{"id": "other/small"}]}, [{"id": "a/small"}, {"id": "b/small"}], {"data": None}]
)
def test_a_name_that_means_no_single_model_is_refused(listed: Any) -> None:  # noqa: ANN401 - JSON
    async def scenario() -> None:
        async with endpoint(answer(200, listed)) as served:
            engine = HttpEngine("meta/small" if isinstance(listed, dict) else "small", EngineSettings(url=served.url))
            with pytest.raises(UserError, match="has no model"):
                await engine.describe()
            await engine.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [404, 405, 501])
def test_without_a_list_the_name_is_the_revision(status: int) -> None:
    async def scenario() -> None:
        async with endpoint(answer(status, "<html>Not here</html>")) as served:
            engine = HttpEngine("small", EngineSettings(url=served.url))
            told = await engine.describe()
            await engine.close()
            assert (told.revision, told.listed) == ("small", False)

    asyncio.run(scenario())
