"""Search over HTTP in front of a service that only repeats what it was asked: shapes, limits, errors."""

import gzip
import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from serving_samples import Echo

from causalneg.config import ServeSettings
from causalneg.serving.api import create_app
from causalneg.serving.keys import Keys
from causalneg.serving.metrics import Metrics

BODY_BYTES = 1_000_000


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def client(echo: Echo) -> Iterator[TestClient]:
    settings = ServeSettings(max_queries=3, max_limit=5, max_body_mb=BODY_BYTES / 1e6)
    with TestClient(create_app(echo, settings, Metrics(), Keys()), raise_server_exceptions=False) as client:
        yield client


def _assert_error(response: object, status: int, kind: str, text: str) -> None:
    body = response.json()  # type: ignore[attr-defined]
    assert response.status_code == status, body  # type: ignore[attr-defined]
    assert set(body) == {"code", "message", "type"}
    assert (body["code"], body["type"]) == (status, kind)
    assert text in body["message"]
    assert "Traceback" not in body["message"]
    assert response.headers["x-content-type-options"] == "nosniff"  # type: ignore[attr-defined]


def test_one_and_many_have_the_same_shape(client: TestClient) -> None:
    one = client.post("/v1/search", json={"query": "a", "limit": 2})
    assert one.status_code == 200
    assert one.headers["content-type"] == "application/json"
    assert one.json() == {
        "index_version": "v2",
        "change": 0,
        "results": [
            [
                {"id": "p0", "score": 1.0, "payload": {"title": "", "text": "a", "metadata": {"rank": 0}}},
                {"id": "p1", "score": 0.5, "payload": {"title": "", "text": "a", "metadata": {"rank": 1}}},
            ]
        ],
        "truncated": [False],
        "timings": {"queue": 1.0, "tokenise": 0.0, "encode": 2.0, "search": 0.0, "rerank": 0.0, "total": 3.0},
    }
    many = client.post("/v1/search", json={"queries": ["a", "b" * 9], "limit": 2}).json()
    assert many["results"][0] == one.json()["results"][0]
    assert many["results"][1][0]["payload"]["text"] == "b" * 9
    assert many["truncated"] == [False, True]


def test_every_wish_reaches_the_service(client: TestClient, echo: Echo) -> None:
    wishes = {
        "query": "a",
        "limit": 2,
        "offset": 3,
        "filter": {"must": [{"key": "year", "range": {"gte": 2000}}]},
        "score_threshold": 0,
        "with_payload": False,
        "hybrid": True,
        "rerank": True,
    }
    assert client.post("/v1/search", json=wishes).json()["results"][0][0]["payload"] is None
    ((_, request, _),) = echo.calls
    assert wishes.items() <= request.model_dump(exclude_unset=True).items()


def test_ten_hits_are_the_default_where_they_are_allowed(client: TestClient, echo: Echo) -> None:
    assert len(client.post("/v1/search", json={"query": "a"}).json()["results"][0]) == 5
    assert len(client.post("/v1/search", json={"query": "a", "offset": 3}).json()["results"][0]) == 2
    with TestClient(create_app(echo, ServeSettings(), Metrics(), Keys())) as usual:
        assert len(usual.post("/v1/search", json={"query": "a"}).json()["results"][0]) == 10


def test_health_and_info_answer(client: TestClient, echo: Echo) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/info").json() == echo.info().model_dump()


def test_ready_says_why_not(client: TestClient, echo: Echo) -> None:
    assert client.get("/ready").json() == {"status": "ok", "problem": None}
    echo.wrong = "changes.jsonl cannot be written."
    assert client.get("/ready").json() == {"status": "ok", "problem": "changes.jsonl cannot be written."}
    echo.not_ready = "The index is being opened."
    response = client.get("/ready")
    _assert_error(response, 503, "not_ready", "being opened")
    assert response.headers["retry-after"] == "1"
    assert client.get("/health").status_code == 200


def test_the_interface_describes_itself(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    search = document["paths"]["/v1/search"]["post"]
    reference = search["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference == "#/components/schemas/SearchRequest"
    assert {"400", "413", "422", "429", "503", "504"} <= set(search["responses"])
    references = set(json.dumps(document).split('"$ref": "#/components/schemas/')[1:])
    assert {r.split('"')[0] for r in references} <= set(document["components"]["schemas"])


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
        (b'{"query": "a", "filter": {"must": [{"has_id": ["\\ud800"]}]}}', 422, "invalid_request", ""),
        (b'{"query": "\xed\xa0\x80"}', 422, "invalid_request", ""),
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
        (b'{"query": "a", "offset": -1}', 422, "invalid_request", "offset: "),
        (b'{"query": "a", "score_threshold": NaN}', 422, "invalid_request", "score_threshold: "),
        (b'{"query": "a", "score_threshold": -Infinity}', 422, "invalid_request", "score_threshold: "),
        (b'{"query": "a", "score_threshold": "1"}', 422, "invalid_request", "score_threshold: "),
        (b'{"query": "a", "filter": {"must": [{"key": "y", "range": {}}]}}', 422, "invalid_request", "filter.must.0"),
        (b'{"query": "a", "filter": {"must": [{"key": "y", "range": {"gt": NaN}}]}}', 422, "invalid_request", "gt"),
        (b'{"query": "a", "timeout_ms": 0}', 422, "invalid_request", "timeout_ms: "),
        (b"[" * 100_000, 422, "invalid_request", ""),
        (b'{"query": "a", "limit": ' + b"9" * 5000 + b"}", 422, "invalid_request", ""),
        (b'{"query": "a", "limit": 6}', 413, "too_large", "at most 5"),
        (b'{"query": "a", "limit": 3, "offset": 3}', 413, "too_large", "at most 5"),
        (b'{"query": "a", "offset": 5}', 413, "too_large", "at most 5"),
        (b'{"query": "a", "limit": 99999999999999999999999}', 413, "too_large", "at most 5"),
        (b'{"queries": ["a", "b", "c", "d"]}', 413, "too_large", "at most 3"),
        (json.dumps({"queries": ["a"] * 10_000}).encode(), 413, "too_large", "at most 3"),
        (b'{"query": "' + b"a" * BODY_BYTES + b'"}', 413, "too_large", "larger than"),
        (b'{"query": "' + b"a" * 10_000_000 + b'"}', 413, "too_large", "larger than"),
        (b'{"query": ""}', 400, "empty_query", "query is empty"),
        (b'{"query": " \\n\\u00a0"}', 400, "empty_query", "query is empty"),
        (b'{"queries": []}', 400, "empty_query", "queries is empty"),
        (b'{"queries": ["a", ""]}', 400, "empty_query", "queries.1 is empty"),
        (b'{"query": "overload"}', 429, "overloaded", "Too much"),
    ],
    ids=lambda value: value[:60].decode("latin1") if isinstance(value, bytes) else None,
)
def test_a_bad_request_is_answered_with_its_error(
    client: TestClient, body: bytes, status: int, kind: str, text: str
) -> None:
    response = client.post("/v1/search", content=body)
    _assert_error(response, status, kind, text)
    assert response.headers.get("retry-after") == ("2" if status == 429 else None)


def test_a_body_without_a_length_is_counted_as_it_comes(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    _assert_error(client.post("/v1/search", content=chunks()), 413, "too_large", "larger than")


def test_a_body_of_just_the_largest_size_is_taken(client: TestClient) -> None:
    frame = b'{"query": "a"}'
    body = frame + b" " * (BODY_BYTES - len(frame))
    assert client.post("/v1/search", content=body).status_code == 200
    assert client.post("/v1/search", content=body + b" ").status_code == 413


def test_unknown_paths_and_methods_have_the_same_error_body(client: TestClient) -> None:
    _assert_error(client.get("/nope"), 404, "not_found", "")
    _assert_error(client.get("/health/"), 404, "not_found", "")
    response = client.get("/v1/search")
    _assert_error(response, 405, "method_not_allowed", "")
    assert response.headers["allow"] == "POST"
    assert client.put("/v1/passages").headers["allow"] == "DELETE, POST"


def test_head_answers_as_get_does_without_the_body(client: TestClient, echo: Echo) -> None:
    paths = [route.path for route in client.app.routes if "GET" in route.methods]  # type: ignore[attr-defined]
    assert len(paths) > 10
    for path in paths:
        place = path.replace("{passage_id:path}", "x").replace("{model:path}", "m")
        get, head = client.get(place), client.head(place)
        assert (head.status_code, head.content) == (get.status_code, b"")
        names = {"content-type", "x-content-type-options"} | (set() if path == "/metrics" else {"content-length"})
        assert {n: head.headers[n] for n in names} == {n: get.headers[n] for n in names}
    refused = client.head("/v1/search")
    assert (refused.status_code, refused.content, refused.headers["allow"]) == (405, b"", "POST")
    assert client.post("/health").headers["allow"] == "GET, HEAD"
    echo.not_ready = "The index is being opened."
    assert client.head("/ready").status_code == 503


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "gzip, identity"])
def test_compressed_bodies_are_refused_as_such(client: TestClient, coding: str) -> None:
    body = gzip.compress(b'{"query": "a"}')
    response = client.post("/v1/search", content=body, headers={"Content-Encoding": coding})
    _assert_error(response, 415, "compressed_body", "without Content-Encoding")
    assert client.post("/v1/search", json={"query": "a"}, headers={"Content-Encoding": "identity"}).status_code == 200


def test_our_own_failure_says_nothing_of_its_inside(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    response = client.post("/v1/search", json={"query": "break"})
    _assert_error(response, 500, "internal", "log")
    assert "secret" not in response.text
    (record,) = [r for r in caplog.records if r.name == "causalneg.serving"]
    assert record.getMessage() == "POST /v1/search failed"
    assert "secret detail" in caplog.text


def test_a_nul_is_a_character_like_any_other(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"query": "a\0b", "limit": 1}).json()
    assert answer["results"][0][0]["payload"]["text"] == "a\0b"
