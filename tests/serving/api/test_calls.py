"""Deadlines, clients that leave, and cancellation from outside."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from serving_samples import Echo

from causalneg.config import ServeSettings
from causalneg.serving.api import create_app
from causalneg.serving.keys import Keys
from causalneg.serving.metrics import Metrics

Message = dict[str, Any]


def _app(echo: Echo, metrics: Metrics | None = None, **settings: int) -> FastAPI:
    return create_app(echo, ServeSettings(**settings), metrics or Metrics(), Keys())


def _requests(metrics: Metrics) -> dict[tuple[str, str], float]:
    families = {f.name: f for f in text_string_to_metric_families(metrics.render().decode())}
    samples = [s for s in families["causalneg_requests"].samples if s.name.endswith("_total")]
    return {(s.labels["route"], s.labels["status"]): s.value for s in samples}


@pytest.mark.parametrize(
    ("settings", "body", "headers", "path"),
    [
        ({"timeout_ms": 50}, {"query": "wait"}, {}, "/v1/search"),
        ({}, {"query": "wait", "timeout_ms": 50}, {}, "/v1/search"),
        ({}, {"query": "wait"}, {"X-Request-Timeout-Ms": "50"}, "/v1/search"),
        ({}, {"query": "wait", "timeout_ms": 9000}, {"X-Request-Timeout-Ms": "50"}, "/v1/search"),
        ({}, {"input": "wait"}, {"X-Request-Timeout-Ms": "50"}, "/v1/embeddings"),
        ({}, {"inputs": "wait"}, {"X-Request-Timeout-Ms": "50"}, "/embed"),
    ],
)
def test_the_least_of_the_times_counts(
    settings: dict[str, int], body: dict[str, object], headers: dict[str, str], path: str
) -> None:
    echo = Echo()
    response = TestClient(_app(echo, **settings)).post(path, json=body, headers=headers)
    assert response.status_code == 504
    assert response.json()["type"] == "deadline"
    assert response.headers["retry-after"] == "1"
    assert echo.cancelled == 1


def test_the_service_knows_the_deadline() -> None:
    echo = Echo()
    client = TestClient(_app(echo, timeout_ms=60_000))
    before = time.monotonic()
    for body in ({"query": "a"}, {"query": "a", "timeout_ms": 30_000}, {"query": "a", "timeout_ms": 10**9}):
        assert client.post("/v1/search", json=body).status_code == 200
    after = time.monotonic()
    for (_, _, deadline), seconds in zip(echo.calls, (60, 30, 60), strict=True):
        assert before + seconds <= deadline.at <= after + seconds


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "²", "9" * 400])
def test_a_header_that_is_no_time_is_refused(value: str) -> None:
    headers = {"X-Request-Timeout-Ms": value.encode("latin-1")}
    response = TestClient(_app(Echo())).post("/v1/search", json={"query": "a"}, headers=headers)
    assert response.status_code == 422
    assert "X-Request-Timeout-Ms" in response.json()["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search", {"query": "a", "limit": 10**6}),
        ("/v1/search", {"query": ""}),
        ("/v1/embeddings", {"input": ["a"] * 1000}),
        ("/embed", {"inputs": ["a"] * 1000}),
    ],
)
def test_a_wrong_header_is_told_before_what_is_wrong_with_the_body(path: str, body: dict[str, object]) -> None:
    response = TestClient(_app(Echo())).post(path, json=body, headers={"X-Request-Timeout-Ms": "soon"})
    assert response.status_code == 422


def _scope(path: str) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "scheme": "http",
        "server": ("server", 80),
    }


async def _send_to(app: FastAPI, receive: Callable[[], Awaitable[Message]]) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(_scope("/v1/search"), receive, send)
    return sent


def _receive(*messages: Message, last: Message | None = None, after: asyncio.Event | None = None) -> Any:  # noqa: ANN401
    waiting = list(messages)

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        if after:
            await after.wait()
        if last is None:
            await asyncio.Event().wait()
        assert last is not None
        return last

    return receive


LEFT = {"type": "http.disconnect"}
WAIT = {"type": "http.request", "body": b'{"query": "wait"}', "more_body": False}


def test_a_client_that_leaves_is_worked_for_no_more() -> None:
    echo, metrics = Echo(), Metrics()
    app = _app(echo, metrics)

    async def ask() -> list[Message]:
        left = asyncio.Event()
        request = asyncio.create_task(_send_to(app, _receive(WAIT, last=LEFT, after=left)))
        while not echo.calls:
            await asyncio.sleep(0)
        assert not request.done()
        left.set()
        return await asyncio.wait_for(request, 5)

    assert asyncio.run(ask()) == []
    assert echo.cancelled == 1
    assert _requests(metrics) == {("/v1/search", "499"): 1}
    assert b"causalneg_in_flight 0.0" in metrics.render()


def test_a_client_that_leaves_within_the_body_is_not_answered() -> None:
    echo, metrics = Echo(), Metrics()
    half = {"type": "http.request", "body": b'{"query"', "more_body": True}
    assert asyncio.run(_send_to(_app(echo, metrics), _receive(half, last=LEFT))) == []
    assert echo.calls == []
    assert _requests(metrics) == {("/v1/search", "499"): 1}


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    half = {"type": "http.request", "body": b'{"query"', "more_body": True}
    sent = asyncio.run(_send_to(_app(Echo(), timeout_ms=50), _receive(half)))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("leaves", [False, True])
def test_cancellation_from_outside_passes(leaves: bool) -> None:
    """As Serve does it when it shuts down; also when the client leaves at that very moment."""
    echo, metrics = Echo(), Metrics()
    app = _app(echo, metrics)

    async def ask() -> None:
        left = asyncio.Event()
        request = asyncio.create_task(_send_to(app, _receive(WAIT, last=LEFT, after=left)))
        while not echo.calls:
            await asyncio.sleep(0)
        if leaves:
            left.set()
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(ask())
    assert echo.cancelled == 1
    assert _requests(metrics) == {("/v1/search", "499"): 1}


def test_an_answer_leaves_nothing_running() -> None:
    app = _app(Echo())
    body = {"type": "http.request", "body": b'{"query": "a"}', "more_body": False}

    async def ask() -> None:
        sent = await _send_to(app, _receive(body))
        assert sent[0]["status"] == 200
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(ask())
