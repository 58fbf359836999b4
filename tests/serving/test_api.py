"""The HTTP interface in front of a retriever that only repeats what it was asked."""

import json
import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from causalneg.config import ServeSettings
from causalneg.serving.api import MAX_BODY_BYTES, Info, Payload, SearchHit, create_app


class Echo:
    """Finds for each query passages that say what the query was."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def search(self, queries: list[str], limit: int) -> list[list[SearchHit]]:
        """Repeat each query `limit` times."""
        self.threads.add(threading.get_ident())
        if queries == ["break"]:
            raise RuntimeError("secret detail")
        return [
            [SearchHit(id=f"p{n}", score=1 / (n + 1), payload=Payload(title="", text=q)) for n in range(limit)]
            for q in queries
        ]

    def info(self) -> Info:
        """Describe an index that is not there."""
        return Info(model="m", model_fingerprint="f", index_version="v1", rows=3, dimension=2)


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = create_app(Echo(), ServeSettings(max_queries=3, max_limit=5))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def _assert_error(response: object, status: int, kind: str, text: str) -> None:
    body = response.json()  # type: ignore[attr-defined]
    assert response.status_code == status, body  # type: ignore[attr-defined]
    assert set(body) == {"code", "message", "type"}
    assert (body["code"], body["type"]) == (status, kind)
    assert text in body["message"]
    assert "Traceback" not in body["message"]


def test_one_and_many_have_the_same_shape(client: TestClient) -> None:
    one = client.post("/v1/search", json={"query": "a", "limit": 2})
    assert one.status_code == 200
    assert one.json() == {
        "index_version": "v1",
        "results": [
            [
                {"id": "p0", "score": 1.0, "payload": {"title": "", "text": "a"}},
                {"id": "p1", "score": 0.5, "payload": {"title": "", "text": "a"}},
            ]
        ],
    }
    many = client.post("/v1/search", json={"queries": ["a", "b"], "limit": 2}).json()
    assert many["results"][0] == one.json()["results"][0]
    assert many["results"][1][0]["payload"]["text"] == "b"


def test_ten_hits_are_the_default_where_they_are_allowed(client: TestClient) -> None:
    assert len(client.post("/v1/search", json={"query": "a"}).json()["results"][0]) == 5
    with TestClient(create_app(Echo(), ServeSettings())) as usual:
        assert len(usual.post("/v1/search", json={"query": "a"}).json()["results"][0]) == 10


def test_health_and_info_answer(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/info").json() == {
        "model": "m",
        "model_fingerprint": "f",
        "index_version": "v1",
        "rows": 3,
        "dimension": 2,
    }
    schema = client.get("/openapi.json").json()["paths"]["/v1/search"]["post"]
    assert "queries" in json.dumps(schema["requestBody"])
    assert "413" in schema["responses"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "text"),
    [
        (b"", 422, "invalid_request", "JSON"),
        (b"{", 422, "invalid_request", "JSON"),
        (b"[]", 422, "invalid_request", ""),
        (b"null", 422, "invalid_request", ""),
        (b"\xff\xfe", 422, "invalid_request", "JSON"),
        (b"{}", 422, "invalid_request", "either query or queries"),
        (b'{"query": "a", "queries": ["b"]}', 422, "invalid_request", "either query or queries"),
        (b'{"query": 1}', 422, "invalid_request", "query: "),
        (b'{"query": "\\ud800"}', 422, "invalid_request", ""),
        (b'{"queries": ["a", "\\udfff"]}', 422, "invalid_request", ""),
        (b'{"queries": "a"}', 422, "invalid_request", "queries: "),
        (b'{"queries": ["a", null]}', 422, "invalid_request", "queries.1: "),
        (b'{"query": "a", "limits": 3}', 422, "invalid_request", "limits: "),
        (b'{"query": "a", "\\u0000": 3}', 422, "invalid_request", ""),
        (b'{"query": "a", "limit": 0}', 422, "invalid_request", "limit: "),
        (b'{"query": "a", "limit": -1}', 422, "invalid_request", "limit: "),
        (b'{"query": "a", "limit": "3"}', 422, "invalid_request", "limit: "),
        (b'{"query": "a", "limit": true}', 422, "invalid_request", "limit: "),
        (b'{"query": "a", "limit": 2.5}', 422, "invalid_request", "limit: "),
        (b'{"query": "a", "limit": NaN}', 422, "invalid_request", ""),
        (b'{"query": "a", "limit": null}', 422, "invalid_request", "limit: "),
        (b"[" * 100_000, 422, "invalid_request", ""),
        (b'{"query": "a", "limit": ' + b"9" * 5000 + b"}", 422, "invalid_request", ""),
        (b'{"query": "a", "limit": 6}', 413, "too_large", "at most 5"),
        (b'{"query": "a", "limit": 99999999999999999999999}', 413, "too_large", "at most 5"),
        (b'{"queries": ["a", "b", "c", "d"]}', 413, "too_large", "at most 3"),
        (b'{"query": "' + b"a" * MAX_BODY_BYTES + b'"}', 413, "too_large", "larger than"),
        (b'{"query": ""}', 400, "empty_query", "query is empty"),
        (b'{"query": " \\n\\u00a0"}', 400, "empty_query", "query is empty"),
        (b'{"queries": []}', 400, "empty_query", "queries is empty"),
        (b'{"queries": ["a", ""]}', 400, "empty_query", "queries.1 is empty"),
    ],
    ids=lambda value: value[:40].decode("latin1") if isinstance(value, bytes) else None,
)
def test_a_bad_request_is_answered_with_its_error(
    client: TestClient, body: bytes, status: int, kind: str, text: str
) -> None:
    _assert_error(client.post("/v1/search", content=body), status, kind, text)


def test_unknown_paths_and_methods_have_the_same_error_body(client: TestClient) -> None:
    _assert_error(client.get("/nope"), 404, "not_found", "")
    response = client.get("/v1/search")
    _assert_error(response, 405, "method_not_allowed", "")
    assert response.headers["allow"] == "POST"


def test_our_own_failure_says_nothing_of_its_inside(client: TestClient) -> None:
    response = client.post("/v1/search", json={"query": "break"})
    _assert_error(response, 500, "internal", "log")
    assert "secret" not in response.text


def test_a_nul_is_a_character_like_any_other(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"query": "a\0b", "limit": 1}).json()
    assert answer["results"][0][0]["payload"]["text"] == "a\0b"


def test_search_does_not_run_on_the_event_loop() -> None:
    echo = Echo()
    app = create_app(echo, ServeSettings())
    loop_threads: set[int] = set()

    @app.get("/thread")
    async def thread() -> None:
        loop_threads.add(threading.get_ident())

    with TestClient(app) as client:
        client.get("/thread")
        client.post("/v1/search", json={"query": "a", "limit": 1})
    assert echo.threads
    assert not echo.threads & loop_threads
