"""The clients with servers that break off, are busy, say nothing, or talk nonsense."""

import socket
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from client_servers import Ask, Deed, answer, found, half, reset, scripted, silence, trickle

from causalneg.client import (
    AsyncClient,
    BadAnswerError,
    CausalNegError,
    Client,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    TimedOutError,
    TooLargeError,
    UnauthorizedError,
    UnreachableError,
)

KEY = "cn_this-is-the-key"
BUSY = '{"code": 429, "message": "Too much is waiting.", "type": "overloaded"}'
NOT_READY = '{"code": 503, "message": "Not yet.", "type": "not_ready"}'
SWAPPED = '{"active": "1", "previous": "2", "replicas": 1, "seconds": 0.1}'
KEYED = {"api_key": KEY}


@pytest.fixture
def closed_port() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    "fault", [reset, half, answer(503, NOT_READY), answer(429, BUSY), answer(502, "<html>"), answer(503)]
)
def test_what_passes_is_overcome(fault: Deed, ask: Ask, pauses: list[float]) -> None:
    with scripted(fault, fault, found("a")) as (url, requests):
        assert [hit.id for hit in ask(url, "search", "q", client=KEYED)] == ["a"]
    assert len(requests) == 3
    assert len(set(requests)) == 1
    assert len(pauses) == 2
    assert all(pause > 0 for pause in pauses)


@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_how_long_to_wait(status: int, ask: Ask, pauses: list[float]) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    with scripted(answer(status, Retry_After="7"), answer(status, Retry_After=then), found("a")) as (url, _):
        assert ask(url, "search", "q", client={"timeout": 60})[0].id == "a"
    assert pauses[0] == 7
    assert 10 < pauses[1] <= 20


def test_no_wait_that_is_in_vain(ask: Ask, pauses: list[float]) -> None:
    with (
        scripted(answer(429, BUSY, Retry_After="60")) as (url, requests),
        pytest.raises(OverloadedError, match="Too much is waiting") as refused,
    ):
        ask(url, "search", "q", client={"timeout": 5})
    assert (refused.value.code, refused.value.type) == (429, "overloaded")
    assert pauses == []
    assert len(requests) == 1


def test_attempts_come_to_an_end(ask: Ask, pauses: list[float]) -> None:
    with (
        scripted(answer(503, NOT_READY)) as (url, requests),
        pytest.raises(NotReadyError, match="3 attempts") as refused,
    ):
        ask(url, "search", "q", client={"retries": 2})
    assert (refused.value.code, refused.value.type) == (503, "not_ready")
    assert (len(requests), len(pauses)) == (3, 2)


def test_time_comes_to_an_end(ask: Ask, real_pauses: list[float]) -> None:
    with scripted(answer(503, NOT_READY)) as (url, _), pytest.raises((NotReadyError, TimedOutError)):
        ask(url, "search", "q", client={"retries": 1_000_000, "timeout": 0.6})
    assert sum(real_pauses) < 0.6


@pytest.mark.parametrize("fault", [silence, trickle])
def test_a_slow_server(fault: Deed, ask: Ask, pauses: list[float]) -> None:
    with scripted(fault) as (url, requests), pytest.raises(TimedOutError, match=r"within 0\.2 s") as late:
        ask(url, "search", "q", client={"timeout": 0.2})
    assert (late.value.code, late.value.type) == (None, "timeout")
    assert len(requests) <= 1
    assert pauses == []


def test_a_server_that_is_not_there(ask: Ask, closed_port: int, pauses: list[float]) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    with pytest.raises(UnreachableError, match="4 attempts") as lost:
        ask(url, "search", "q", client=KEYED)
    assert lost.value.code is None
    assert len(pauses) == 3
    pauses.clear()
    assert ask(url, "ready") is False
    assert pauses == []


def test_a_server_that_comes_back(ask: Ask, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts during the first pause."""
    with ExitStack() as servers:

        def start(_: float) -> None:
            servers.enter_context(scripted(found("a"), port=closed_port))

        async def start_async(seconds: float) -> None:
            start(seconds)

        monkeypatch.setattr(Client, "_sleep", staticmethod(start))
        monkeypatch.setattr(AsyncClient, "_sleep", staticmethod(start_async))
        assert ask(f"http://127.0.0.1:{closed_port}", "search", "q")[0].id == "a"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, UnauthorizedError),
        (403, UnauthorizedError),
        (404, NotFoundError),
        (409, CausalNegError),
        (413, TooLargeError),
        (422, InvalidRequestError),
        (501, CausalNegError),
        (504, TimedOutError),
        (507, CausalNegError),
    ],
)
def test_what_does_not_pass_is_not_repeated(
    status: int, kind: type[CausalNegError], ask: Ask, pauses: list[float]
) -> None:
    body = f'{{"code": {status}, "message": "So it is.", "type": "some_name"}}'
    with scripted(answer(status, body)) as (url, requests), pytest.raises(CausalNegError, match="So it is") as refused:
        ask(url, "search", "q")
    assert type(refused.value) is kind
    assert (refused.value.code, refused.value.type) == (status, "some_name")
    assert (len(requests), pauses) == (1, [])


@pytest.mark.parametrize("method", ["roll_back", "activate"])
def test_a_swap_is_not_done_twice(method: str, ask: Ask, pauses: list[float]) -> None:
    """When the connection broke, it may have been done; when the server was not ready, it was not."""
    args = ["1"] if method == "activate" else []
    for fault in (reset, half, answer(502)):
        with scripted(fault, answer(200, SWAPPED)) as (url, requests), pytest.raises(CausalNegError):
            ask(url, method, *args)
        assert (len(requests), pauses) == (1, [])
    with scripted(answer(503, NOT_READY), answer(200, SWAPPED)) as (url, requests):
        assert ask(url, method, *args).active == "1"
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "Invalid JSON"),
        ("", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        ("[]", "valid dictionary|object"),
        ("{}", "index_version: Field required"),
        (
            '{"index_version": "1", "change": 0, "results": [], "truncated": [], "timings": {}}',
            "answered 0 queries where 1",
        ),
    ],
)
def test_an_answer_that_is_none(body: str | bytes, words: str, ask: Ask, pauses: list[float]) -> None:
    with scripted(answer(200, body)) as (url, requests), pytest.raises(BadAnswerError, match=words):
        ask(url, "search", "q")
    assert (len(requests), pauses) == (1, [])


def test_an_answer_that_cannot_be_unpacked(ask: Ask) -> None:
    with (
        scripted(answer(200, "{}", Content_Encoding="gzip")) as (url, _),
        pytest.raises(BadAnswerError, match="unpacked"),
    ):
        ask(url, "search", "q")


@pytest.mark.parametrize(
    "data",
    [
        "[]",
        '[{"index": 0, "embedding": "AAAAAA=="}]',
        '[{"index": 0, "embedding": "AAAAAA=="}, {"index": 0, "embedding": "AAAAAA=="}]',
        '[{"index": 0, "embedding": "AAAAAA=="}, {"index": 1, "embedding": "AAAAAAAAAAA="}]',
        '[{"index": 0, "embedding": "AAAAAA=="}, {"index": 1, "embedding": "AAA="}]',
        '[{"index": 0, "embedding": "AAAAAA=="}, {"index": 1, "embedding": "!"}]',
    ],
)
def test_vectors_that_are_none(data: str, ask: Ask) -> None:
    """Too few, twice the same, of two lengths, half a number, and no base64."""
    info = (
        '{"model_id": "m", "model_sha": "", "model_dtype": "", "backend": "", "max_input_length": 9, '
        '"max_client_batch_size": 8, "max_batch_tokens": 9, "prompts": {}, "dimension": 1, "index_version": "1", '
        '"index_kind": "flat", "rows": 1, "change": 0, "hybrid": false, "rerank": false, "version": "0"}'
    )
    body = f'{{"model": "m", "data": {data}, "usage": {{"prompt_tokens": 1, "total_tokens": 1}}}}'
    with (
        scripted(answer(200, info), answer(200, body)) as (url, _),
        pytest.raises(BadAnswerError, match="no usable vectors"),
    ):
        ask(url, "embed", ["a", "b"])


def test_vectors_in_another_order_and_form(ask: Ask) -> None:
    data, usage = '[{"index": 0, "embedding": [0.5, 2]}]', '{"prompt_tokens": 1, "total_tokens": 1}'
    body = f'{{"model": "m", "data": {data}, "usage": {usage}}}'
    with scripted(answer(200, body)) as (url, _):
        assert ask(url, "embed", "a").tolist() == [0.5, 2.0]


def test_another_server_is_no_missing_passage(ask: Ask) -> None:
    with scripted(answer(404, "<h1>nginx</h1>")) as (url, _), pytest.raises(NotFoundError, match="nginx"):
        ask(url, "get", "a")


def test_redirects_are_not_followed(ask: Ask) -> None:
    with (
        scripted(found("a")) as (there, asked_there),
        scripted(answer(307, Location=f"{there}/v1/search")) as (url, _),
        pytest.raises(CausalNegError, match=f"moved to {there}"),
    ):
        ask(url, "search", "q", client=KEYED)
    assert asked_there == []


@pytest.mark.parametrize(
    "fault",
    [
        reset,
        half,
        answer(401, f'{{"code": 401, "message": "Bearer {KEY} is wrong", "type": "unknown_key"}}'),
        answer(500, f"you sent {KEY}"),
        answer(302, Location=f"http://elsewhere/?key={KEY}"),
        answer(200, f'{{"{KEY}": 1}}'),
        answer(200, KEY),
        answer(503, KEY),
    ],
)
def test_the_key_is_sent_and_never_said(fault: Deed, ask: Ask, pauses: list[float]) -> None:
    with scripted(fault) as (url, requests), pytest.raises(CausalNegError) as error:
        ask(url, "search", "q", client=KEYED)
    assert f"Authorization: Bearer {KEY}".encode() in requests[0]
    seen: BaseException | None = error.value
    while seen is not None:
        assert KEY not in str(seen) + repr(seen)
        seen = seen.__cause__ or seen.__context__
    for kind in (Client, AsyncClient):
        assert KEY not in repr(kind(url, KEY))
