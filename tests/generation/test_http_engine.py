"""The engine behind an endpoint: what it asks, what it makes of each answer, and how often and how fast it asks."""

import asyncio
import logging
import socket
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from servers import HANG, Endpoint, answer, endpoint

from causalneg.config import EngineSettings
from causalneg.errors import UserError
from causalneg.generation.engines import Completion, EngineError, Likelihood
from causalneg.generation.engines.http import HttpEngine

CHAT = [{"role": "user", "content": "Who won?"}]
SCHEMA = {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}}, "required": ["answer"]}
KEY = "sk-very-secret"
Result = TypeVar("Result")


def chat_reply(content: str | None = "Henry V", finish: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    usage = more.pop("usage", {"prompt_tokens": 10, "completion_tokens": 3})
    return {"choices": [{"message": message, "finish_reason": finish, **more}], "usage": usage}


GOOD = answer(200, chat_reply())
HALF = answer(200, chat_reply())[:-20]
EMPTY_CHOICES = answer(200, {"choices": []})


class FakeTime:
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def with_engine(
    answers: list[bytes | None],
    work: Callable[[HttpEngine, Endpoint, FakeTime], Awaitable[Result]],
    delay: float = 0,
    **settings: Any,
) -> Result:
    """Run some work on an engine whose endpoint gives these answers."""

    async def scenario() -> Result:
        async with endpoint(*answers, delay=delay) as served:
            time = FakeTime()
            chosen = EngineSettings(url=served.url, **{"timeout_seconds": 5, **settings})
            engine = HttpEngine("small", chosen, clock=time.clock, sleep=time.sleep)
            try:
                return await work(engine, served, time)
            finally:
                await engine.close()

    return asyncio.run(scenario())


def ask(engine: HttpEngine, **options: Any) -> Awaitable[Completion]:
    return engine.complete(CHAT, **{"schema": None, "max_tokens": 50, "temperature": 0.5, "seed": 3} | options)


def failure(answers: list[bytes | None], **settings: Any) -> tuple[EngineError, int]:
    """Return the error that a completion ends with, and how many requests there were."""

    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> tuple[EngineError, int]:
        with pytest.raises(EngineError) as raised:
            await ask(engine)
        return raised.value, len(served.requests)

    return with_engine(answers, work, **settings)


def sentence(answers: list[bytes | None], **settings: Any) -> str:
    """Return the sentence for the user that a completion ends with, after a single request."""

    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> str:
        with pytest.raises(UserError) as raised:
            await ask(engine)
        assert len(served.requests) == 1
        return str(raised.value)

    return with_engine(answers, work, **settings)


def test_a_request_and_its_answer() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}

    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> None:
        assert await ask(engine) == Completion("Henry V", "stop", 10, 8, 3)
        request = served.requests[0]
        assert request.path == "/v1/chat/completions"
        expected = {"model": "small", "messages": CHAT, "max_tokens": 50, "temperature": 0.5, "seed": 3}
        assert request.body == expected
        assert "authorization" not in request.head.lower()

    with_engine([answer(200, chat_reply(usage=usage))], work)


def test_a_schema_is_asked_for_strictly() -> None:
    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> None:
        await ask(engine, schema=SCHEMA)
        form = served.requests[0].body["response_format"]
        assert form == {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        }

    with_engine([GOOD], work)


def test_probabilities_of_each_place() -> None:
    def place(token: str, *top: tuple[str, float]) -> dict[str, Any]:
        entries = [{"token": text, "logprob": logprob} for text, logprob in top]
        return {"token": token, "logprob": -2.302585092994046, "top_logprobs": entries}

    # Twice the same text: two tokens that look the same. "c" was taken although it is not among the likeliest.
    content = [place("b", ("a", -0.6931471805599453), ("a", -1.3862943611198906)), place("c", ("b", -9999.0))]

    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> None:
        found = (await ask(engine, top_probabilities=50)).probabilities
        assert served.requests[0].body["logprobs"] is True
        assert served.requests[0].body["top_logprobs"] == 20
        assert [pytest.approx(place) for place in found] == [{"a": 0.75, "b": 0.1}, {"b": 0.0, "c": 0.1}]

    with_engine([answer(200, chat_reply(logprobs={"content": content}))], work)


def test_a_server_that_counts_nothing_and_gives_no_probabilities() -> None:
    async def work(engine: HttpEngine, _served: Endpoint, _time: FakeTime) -> None:
        assert await ask(engine, top_probabilities=5) == Completion("Henry V", "stop", 0, 0, 0)

    with_engine([answer(200, chat_reply(usage=None, logprobs=None))], work)


@pytest.mark.parametrize("content", ["cut of", None])
def test_an_answer_that_was_cut_is_handed_on(content: str | None) -> None:
    async def work(engine: HttpEngine, _served: Endpoint, _time: FakeTime) -> None:
        assert await ask(engine) == Completion(content or "", "length", 10, 0, 3)

    with_engine([answer(200, chat_reply(content, "length"))], work)


@pytest.mark.parametrize(
    "reply", [chat_reply(None, message={"refusal": "I won't."}), chat_reply("I", "content_filter")]
)
def test_a_refusal_is_not_asked_again(reply: dict[str, Any]) -> None:
    error, requests = failure([answer(200, reply)])
    assert (error.kind, error.retryable, requests) == ("refusal", False, 1)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (answer(429), "rate_limited"),
        (answer(500), "server_error"),
        (answer(502, "<html>Bad gateway</html>"), "server_error"),
        (answer(503), "server_error"),
        (answer(504), "server_error"),
        (answer(529), "server_error"),
        (answer(408), "timeout"),
        (HANG, "timeout"),
        (b"", "bad_response"),
        (b"\x16\x03\x01\x02\x00", "bad_response"),
        (HALF, "bad_response"),
        (answer(200, "<html>Hello</html>"), "bad_response"),
        (answer(200, "[1, 2]"), "bad_response"),
        (answer(200, "{}"), "bad_response"),
        (answer(200, "null"), "bad_response"),
        (answer(200, "[" * 100_000), "bad_response"),
        (EMPTY_CHOICES, "bad_response"),
        (answer(200, chat_reply(None)), "bad_response"),
        (answer(200, {"choices": [{"text": "Henry"}]}), "bad_response"),
        (answer(200, chat_reply()).replace(b"Henry V", b"Henr\xff V"), "bad_response"),
        (answer(200, "no gzip", Content_Encoding="gzip"), "bad_response"),
    ],
)
def test_what_may_pass_is_asked_again_up_to_the_limit(bad: bytes | None, kind: str) -> None:
    patience = 1.0 if bad is HANG else 30.0  # a busy machine is slow to answer, too
    error, requests = failure([bad], timeout_seconds=patience, max_attempts=2)
    assert (error.kind, error.retryable, requests) == (kind, True, 2)

    async def work(engine: HttpEngine, served: Endpoint, time: FakeTime) -> None:
        assert (await ask(engine)).text == "Henry V"
        assert len(served.requests) == 3
        first, second = time.naps
        assert 0.5 <= first <= 1 <= second <= 2

    with_engine([bad, bad, GOOD], work, timeout_seconds=patience)


def test_an_answer_in_drops_is_a_timeout_too() -> None:
    """The limit is on the whole answer, not on the time between two pieces of it."""

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            writer.close()

    async def scenario() -> str:
        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            engine = HttpEngine("small", EngineSettings(url=url, timeout_seconds=0.4, max_attempts=1))
            with pytest.raises(EngineError) as raised:
                await ask(engine)
            await engine.close()
            return raised.value.kind

    assert asyncio.run(scenario()) == "timeout"


def test_a_connection_that_is_refused_is_tried_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        time = FakeTime()

        async def scenario() -> None:
            engine = HttpEngine("small", EngineSettings(url=url), clock=time.clock, sleep=time.sleep)
            await ask(engine)

        with pytest.raises(EngineError, match=r"can't be reached.*\(3 attempts\)") as raised:
            asyncio.run(scenario())
    assert (raised.value.kind, raised.value.retryable, len(time.naps)) == ("server_error", True, 2)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("9999", 120), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)])
def test_retry_after_is_honoured(header: str, seconds: float) -> None:
    async def work(engine: HttpEngine, served: Endpoint, time: FakeTime) -> None:
        await ask(engine)
        assert len(served.requests) == 2
        assert len(time.naps) == 1
        assert seconds + 0.5 <= time.naps[0] <= seconds + 1

    with_engine([answer(429, Retry_After=header), GOOD], work)


def test_an_endpoint_that_asks_to_wait_is_left_alone_by_all_requests() -> None:
    async def work(engine: HttpEngine, served: Endpoint, time: FakeTime) -> None:
        first = asyncio.create_task(ask(engine))
        while not served.requests or time.now == 1000.0:
            await asyncio.sleep(0.01)
        await ask(engine)
        assert time.now >= 1050.0
        await first

    with_engine([answer(429, Retry_After="50"), GOOD], work, max_num_seqs=1)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "Bad.", "code": "context_length_exceeded"}}, "too_long"),
        (400, {"error": {"message": "This model's maximum context length is 8 tokens.", "code": 400}}, "too_long"),
        (400, {"error": {"message": "max_tokens=9 cannot be greater than max_model_len=8."}}, "too_long"),
        (413, "", "too_long"),
        (422, {"detail": "prompt too long"}, "too_long"),
        (400, {"error": {"message": "The schema is not supported."}}, "refused"),
        (422, {"detail": [{"msg": "field required"}]}, "refused"),
        (400, "[" * 100_000, "refused"),
        (405, "", "refused"),
        (501, "", "refused"),
    ],
)
def test_a_request_that_is_wrong_is_not_sent_again(status: int, body: object, kind: str) -> None:
    error, requests = failure([answer(status, body)])
    assert (error.kind, error.retryable, requests) == (kind, False, 1)
    assert str(status) in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_a_sentence(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_KEY", KEY)
    told = sentence(
        [answer(status, {"error": {"message": f"Incorrect API key provided: {KEY}"}})], api_key_env="SMALL_KEY"
    )
    assert "http://127.0.0.1" in told
    assert "SMALL_KEY" in told
    assert KEY not in told


def test_an_account_without_money_stops_with_the_endpoints_words() -> None:
    assert "(402): Insufficient Balance" in sentence([answer(402, {"error": {"message": "Insufficient Balance"}})])


def test_a_model_that_is_not_there_is_a_sentence() -> None:
    told = sentence([answer(404, {"error": {"message": "no such model"}})])
    assert "'small'" in told
    assert "http://127.0.0.1" in told


def test_the_key_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SMALL_KEY", KEY + "\n")  # as `export KEY=$(cat file)` wouldn't, but a secret's file may
    caplog.set_level(logging.DEBUG)
    bodies: list[Any] = [f"your key {KEY}", {"error": {"message": KEY}}, {"choices": KEY}, {KEY: KEY}]
    answers = [answer(status, body) for status in (200, 400, 401, 404, 429, 500) for body in bodies]
    answers += [HALF, b"", answer(307, Location="http://127.0.0.1:1/v1")]

    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> None:
        for _ in answers:
            with pytest.raises((EngineError, UserError)) as raised:
                await ask(engine)
            assert KEY not in "".join(traceback.format_exception(raised.value))
            assert KEY not in repr(engine) + repr(raised.value)
        assert all(f"Authorization: Bearer {KEY}\r\n".lower() in request.head.lower() for request in served.requests)

    with_engine(answers, work, api_key_env="SMALL_KEY", max_attempts=1)
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", ["sk-a b", "sk-a\nX-Header: 1", "sk-\N{EURO SIGN}"])
def test_a_key_that_cannot_be_one_is_named_by_its_variable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_KEY", key)
    with pytest.raises(UserError, match="SMALL_KEY") as raised:
        HttpEngine("small", EngineSettings(url="http://127.0.0.1:1/v1", api_key_env="SMALL_KEY"))
    assert "sk-" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "127.0.0.1:8001/v1",
        "ftp://127.0.0.1/v1",
        "file:///etc/passwd",
        "http:///v1",
        "http://user:secret@127.0.0.1/v1",
        "http://127.0.0.1/v1?key=secret",
        "http://127.0.0.1:port/v1",
    ],
)
def test_an_address_that_can_be_none_is_refused(url: str | None) -> None:
    with pytest.raises(UserError, match=r"engine\.url") as raised:
        HttpEngine("small", EngineSettings(url=url))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    async def scenario() -> None:
        async with endpoint(GOOD) as other, endpoint(answer(status, Location=f"{other.url}/chat")) as served:
            engine = HttpEngine("small", EngineSettings(url=served.url))
            with pytest.raises(UserError, match="redirects") as raised:
                await ask(engine)
            await engine.close()
            assert f"{other.url}/chat" in str(raised.value)
            assert not other.requests

    asyncio.run(scenario())


def test_a_proxy_of_the_environment_is_used_except_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with endpoint(GOOD) as proxy, endpoint(GOOD) as local:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
            for url in (local.url, "http://llm.example/v1/"):
                engine = HttpEngine("small", EngineSettings(url=url))
                await ask(engine)
                await engine.close()
            assert [request.path for request in local.requests] == ["/v1/chat/completions"]
            assert [request.path for request in proxy.requests] == ["http://llm.example/v1/chat/completions"]

    asyncio.run(scenario())


def test_no_more_requests_at_once_than_allowed() -> None:
    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> None:
        await asyncio.gather(*(ask(engine) for _ in range(20)))
        assert served.most_at_once == 4
        assert len(served.requests) == 20

    with_engine([GOOD], work, delay=0.03, max_num_seqs=4)


def test_a_request_that_waits_to_be_repeated_does_not_hold_up_the_others() -> None:
    async def work(engine: HttpEngine, _served: Endpoint, _time: FakeTime) -> None:
        done: list[int] = []

        async def one(number: int) -> None:
            await ask(engine)
            done.append(number)

        await asyncio.gather(*map(one, range(4)))
        assert done == [1, 2, 3, 0]

    with_engine([answer(500), GOOD], work, max_num_seqs=1)


@pytest.mark.parametrize(
    ("limits", "started"),
    [
        ({"requests_per_minute": 3}, [0, 0, 0, 60, 60, 60, 120]),
        # About 52 tokens are estimated for a request, and 13 are used.
        ({"tokens_per_minute": 79}, [0, 0, 0, 60, 60, 60, 120]),
    ],
)
def test_the_limits_of_a_minute_hold(limits: dict[str, int], started: list[float]) -> None:
    async def work(engine: HttpEngine, served: Endpoint, time: FakeTime) -> None:
        seen = []
        for _ in started:
            await ask(engine)
            seen.append(round(time.now) - 1000)
        assert seen == started
        assert len(served.requests) == len(started)

    with_engine([GOOD], work, **limits)


def test_repeated_requests_count_for_the_limits_too() -> None:
    async def work(engine: HttpEngine, _served: Endpoint, time: FakeTime) -> None:
        await ask(engine)
        assert time.now >= 1060

    with_engine([answer(500), answer(500), GOOD], work, requests_per_minute=2)


def test_an_engine_can_be_used_in_one_event_loop_after_another() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = HttpEngine("small", EngineSettings(url=f"http://127.0.0.1:{port}/v1", max_num_seqs=1))
    keep_alive = GOOD.replace(b"Connection: close", b"Connection: keep-alive")

    async def scenario(close: bool) -> None:
        served = Endpoint([keep_alive])
        async with await asyncio.start_server(served.handle, "127.0.0.1", port, reuse_address=True):
            await asyncio.gather(*(ask(engine) for _ in range(3)))
        if close:
            await engine.close()
            await engine.close()

    asyncio.run(scenario(close=False))
    asyncio.run(scenario(close=True))
    asyncio.run(scenario(close=False))
    asyncio.run(engine.close())


# Likelihoods.


def text_reply(tokens: list[str], logprobs: list[float | None], **more: Any) -> bytes:
    """Return an echo: a prompt's tokens and then the one that was generated."""
    told = {"tokens": [*tokens, "x"], "token_logprobs": [*logprobs, -9.0], "text_offset": [-1] * (len(tokens) + 1)}
    usage = {"prompt_tokens": len(tokens), "completion_tokens": 1}
    return answer(200, {"choices": [{"text": "", "logprobs": told}], "usage": usage} | more)


def counted(tokens: int) -> bytes:
    return answer(200, {"choices": [{"text": ""}], "usage": {"prompt_tokens": tokens, "completion_tokens": 1}})


def likelihood(answers: list[bytes | None], segments: list[str]) -> tuple[Likelihood, list[Any]]:
    """Return a likelihood and the bodies of the requests for it."""

    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> tuple[Likelihood, list[Any]]:
        found = await engine.likelihood(segments)
        assert all(request.path == "/v1/completions" for request in served.requests)
        return found, [request.body for request in served.requests]

    return with_engine(answers, work)


def test_a_likelihood_is_the_mean_over_each_segment() -> None:
    reply = text_reply(["The", " cat", " sat", " down"], [None, -1.0, -2.0, -4.0])
    found, bodies = likelihood([reply], ["The cat", " sat down"])
    assert found == Likelihood([-1.0, -3.0], 4)
    expected = {"prompt": "The cat sat down", "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    assert bodies == [expected | {"model": "small"}]


@pytest.mark.parametrize(
    ("tokens", "segments", "means"),
    [
        # A special token at the start, which the text doesn't have: then the first word's probability is known.
        (["<s>", "ab", "cd", "ef"], ["ab", "cdef"], [-1, -2.5]),
        # vLLM's halves of a character.
        (["a", "", " \N{GRINNING FACE}", "b"], ["a", " \N{GRINNING FACE}b"], [0, -2]),
        # Tokens over the border: most of it, and the later one where it is half and half.
        (["a", "b.\n\n", "c", "d"], ["ab.", "\n\ncd"], [0, -2]),
        (["a", "bb.\n", "c", "d"], ["abb.", "\ncd"], [-1, -2.5]),
        (["a", "b", " c", "d"], ["ab ", "cd"], [-1, -2.5]),
        # Empty segments, at each place.
        (["a", "b", "c", "d"], ["", "ab", "", "cd", ""], [0, -1, 0, -2.5, 0]),
        (["a", "b", "c", "d"], ["abcd"], [-2]),
    ],
)
def test_tokens_find_their_segment(tokens: list[str], segments: list[str], means: list[float]) -> None:
    found, bodies = likelihood([text_reply(tokens, [None, -1.0, -2.0, -3.0])], segments)
    assert found.mean_logprobs == means
    assert len(bodies) == 1


@pytest.mark.parametrize(
    ("segments", "counts", "means"),
    [
        (["aa", "\N{GRINNING FACE}"], [2], [-1.0, -2.5]),
        (["a", "a", "\N{GRINNING FACE}"], [1, 2], [0.0, -1.0, -2.5]),
        (["", "aa", "", "\N{GRINNING FACE}"], [2, 2], [0.0, -1.0, 0.0, -2.5]),
        # A character in parts at the very start.
        (["\N{GRINNING FACE}", "aa"], [3], [-1.5, -3.0]),
    ],
)
def test_tokens_that_are_not_the_text_are_counted(segments: list[str], counts: list[int], means: list[float]) -> None:
    half = "\N{REPLACEMENT CHARACTER}"
    reply = text_reply(["a", "a", half, half], [None, -1.0, -2.0, -3.0])

    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> None:
        found = await engine.likelihood(segments)
        assert found == Likelihood(means, 4)
        asked = [request.body["prompt"] for request in served.requests[1:]]
        assert asked == [text for at in range(1, len(segments)) if (text := "".join(segments[:at]))]

    with_engine([reply, *map(counted, counts)], work, max_num_seqs=1)


@pytest.mark.parametrize(
    "refusal",
    [
        answer(400, {"error": {"message": "echo is not allowed with logprobs"}}),
        answer(404, {"error": {"message": "This is a chat model"}}),
        answer(405),
        answer(422, {"detail": "extra field: echo"}),
        answer(501),
        answer(200, {"choices": [{"text": "cat"}]}),
        answer(200, {"choices": [{"text": "cat", "logprobs": None}]}),
        answer(200, {"choices": [{"text": "cat", "logprobs": {"tokens": ["x"], "token_logprobs": None}}]}),
        # Only what was generated.
        text_reply([], [], usage={"prompt_tokens": 4, "completion_tokens": 1}),
        text_reply([], []),
        text_reply([], [], usage=None),
        text_reply(["no", "text"], [None, -1.0], usage=None),
    ],
)
def test_an_endpoint_that_cannot_tell_likelihoods(refusal: bytes) -> None:
    async def work(engine: HttpEngine, _served: Endpoint, _time: FakeTime) -> None:
        with pytest.raises(EngineError) as raised:
            await engine.likelihood(["The cat", " sat down"])
        assert (raised.value.kind, raised.value.retryable) == ("unsupported", False)

    with_engine([refusal], work)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [(answer(400, {"error": {"message": "maximum context length"}}), "too_long"), (HALF, "bad_response")],
)
def test_other_failures_of_a_likelihood_keep_their_kind(bad: bytes, kind: str) -> None:
    async def work(engine: HttpEngine, _served: Endpoint, _time: FakeTime) -> None:
        with pytest.raises(EngineError) as raised:
            await engine.likelihood(["The cat", " sat down"])
        assert raised.value.kind == kind

    with_engine([bad], work)


# What the endpoint has.


def described(card: dict[str, Any]) -> tuple[str, int | None]:
    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> tuple[str, int | None]:
        told = await engine.describe()
        assert served.requests[0].head.startswith("GET /v1/models ")
        return told.revision, told.max_model_len

    return with_engine([answer(200, {"data": [{"id": "other"}, {"id": "small"} | card]})], work)


def test_a_description_holds_over_a_restart_and_tells_models_apart() -> None:
    card = {"created": 1, "owned_by": "vllm", "root": "/models/small", "max_model_len": 2048, "permission": [{"id": 1}]}
    revision, longest = described(card)
    assert longest == 2048
    assert revision.startswith("small@")
    assert described(card | {"created": 2, "permission": []}) == (revision, 2048)
    assert described(card | {"root": "/models/large"})[0] != revision
    service = {"created": 1, "owned_by": "openai"}
    assert described(service) != described(service | {"created": 2})
    assert described({}) == described({})
    assert described({})[1] is None


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (answer(200, {"data": [{"id": "tiny"}, {"id": "huge"}]}), "no model 'small'; it has tiny, huge"),
        (answer(200, {"data": []}), "it has none"),
        (answer(200, {"data": [{"id": f"m{number}"} for number in range(500)]}), "m19, …"),
        (answer(200, "<html>Welcome</html>"), "does not tell its models"),
        (answer(500), "does not tell its models"),
        (answer(401), "OPENAI_API_KEY"),
    ],
)
def test_an_endpoint_without_the_model_is_a_sentence(bad: bytes, words: str) -> None:
    async def work(engine: HttpEngine, served: Endpoint, _time: FakeTime) -> None:
        with pytest.raises(UserError, match=words) as raised:
            await engine.describe()
        assert served.url in str(raised.value)
        assert len(str(raised.value)) < 600

    with_engine([bad], work)


def test_an_endpoint_that_is_not_there_is_a_sentence() -> None:
    async def scenario() -> None:
        time = FakeTime()
        engine = HttpEngine("small", EngineSettings(url="http://127.0.0.1:1/v1"), clock=time.clock, sleep=time.sleep)
        await engine.describe()

    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:1/v1.*check that it is running"):
        asyncio.run(scenario())


def test_an_endpoint_that_never_answers_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalneg.generation.engines.http._DESCRIBE_SECONDS", 0.3)

    async def work(engine: HttpEngine, _served: Endpoint, _time: FakeTime) -> None:
        with pytest.raises(UserError, match=r"no answer within 0\.3 s"):
            await engine.describe()

    with_engine([HANG], work)


def test_a_cancelled_request_gives_its_place_back() -> None:
    async def work(engine: HttpEngine, _served: Endpoint, _time: FakeTime) -> None:
        hanging = asyncio.create_task(ask(engine))
        await asyncio.sleep(0.1)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert (await ask(engine)).text == "Henry V"

    with_engine([HANG, GOOD], work, max_num_seqs=1)
