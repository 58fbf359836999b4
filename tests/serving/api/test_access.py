"""Who may do what: every route with no key, a wrong one, one that may read, and one that may write."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from serving_samples import Echo

from causalneg.config import ServeSettings
from causalneg.serving.api import create_app
from causalneg.serving.keys import Keys, add
from causalneg.serving.metrics import Metrics

OPEN = [("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/health"), ("GET", "/ready")]
OPEN += [("GET", "/docs/swagger-ui-bundle.js"), ("GET", "/docs/swagger-ui.css")]
READING = {
    ("GET", "/info"): None,
    ("GET", "/metrics"): None,
    ("GET", "/v1/index"): None,
    ("GET", "/v1/models"): None,
    ("GET", "/v1/models/{model}"): None,
    ("GET", "/v1/passages/{passage_id}"): None,
    ("POST", "/v1/search"): {"query": "a"},
    ("POST", "/v1/embeddings"): {"input": "a"},
    ("POST", "/embed"): {"inputs": "a"},
}
WRITING = {
    ("POST", "/v1/passages"): {"passages": [{"id": "b", "text": "t"}]},
    ("POST", "/v1/passages/delete"): {"ids": ["b"]},
    ("DELETE", "/v1/passages"): {"ids": ["b"]},
    ("POST", "/v1/index/activate"): {"version": "v1"},
    ("POST", "/v1/index/rollback"): None,
    ("POST", "/v1/index/merge"): None,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def reader(file: Path) -> str:
    return add(file, "reader", "read")


@pytest.fixture
def writer(file: Path) -> str:
    return add(file, "writer\nroot", "write")


@pytest.fixture
def secured(file: Path, reader: str, writer: str) -> Iterator[TestClient]:
    with TestClient(_app(Keys.read(file))) as client:
        client.post("/v1/passages", json={"passages": [{"id": "x", "text": "t"}]}, headers={"X-API-Key": writer})
        yield client


def _app(keys: Keys) -> object:
    return create_app(Echo(), ServeSettings(), Metrics(), keys)


def _ask(client: TestClient, route: tuple[str, str], body: object, **headers: str) -> tuple[int, str | None]:
    method, path = route
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    path = path.replace("{passage_id}", "x").replace("{model}", "m")
    response = client.request(method, path, json=body, headers=names)
    if response.status_code == 401:
        assert response.headers["www-authenticate"] == "Bearer"
    return response.status_code, response.json()["type"] if response.status_code >= 400 else None


def test_every_route_is_in_one_of_the_three_groups() -> None:
    app = _app(Keys())
    paths = app.openapi()["paths"]  # type: ignore[attr-defined]
    documented = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    assert documented | set(OPEN) == {*OPEN, *READING, *WRITING}


@pytest.mark.parametrize("route", OPEN)
def test_open_routes_need_no_key(secured: TestClient, route: tuple[str, str]) -> None:
    assert secured.request(*route).status_code == 200
    assert secured.request(*route, headers={"X-API-Key": "wrong"}).status_code == 200


@pytest.mark.parametrize("route", [*READING, *WRITING])
def test_the_others_need_a_known_key(secured: TestClient, reader: str, route: tuple[str, str]) -> None:
    body = {**READING, **WRITING}[route]
    assert _ask(secured, route, body) == (401, "no_key")
    assert _ask(secured, route, body, X_API_Key="") == (401, "unknown_key")
    assert _ask(secured, route, body, X_API_Key="cn_wrong") == (401, "unknown_key")
    assert _ask(secured, route, body, Authorization=f"Basic {reader}") == (401, "no_key")
    assert _ask(secured, route, body, Authorization=f"Bearer {reader}x") == (401, "unknown_key")
    assert _ask(secured, route, body, Authorization="Bearer ") == (401, "no_key")


@pytest.mark.parametrize("route", READING)
def test_either_key_reads(secured: TestClient, reader: str, writer: str, route: tuple[str, str]) -> None:
    for key in (reader, writer):
        assert _ask(secured, route, READING[route], Authorization=f"Bearer {key}") == (200, None)
        assert _ask(secured, route, READING[route], X_API_Key=key) == (200, None)


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization"])
@pytest.mark.parametrize("around", ["{} ", " {}", "\t{}  ", "{}\n"])
def test_white_space_around_a_key_does_not_count(secured: TestClient, reader: str, name: str, around: str) -> None:
    value = around.format(reader if name == "X-API-Key" else f"Bearer {reader}").encode()
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/info",
        "raw_path": b"/info",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(name.lower().encode(), value)],
    }
    statuses = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        statuses.append(message.get("status"))

    asyncio.run(secured.app(scope, receive, send))  # type: ignore[arg-type] # clients would tidy the header up
    assert statuses[0] == 200


@pytest.mark.parametrize("route", WRITING)
def test_only_a_write_key_changes(secured: TestClient, reader: str, writer: str, route: tuple[str, str]) -> None:
    assert _ask(secured, route, WRITING[route], Authorization=f"bearer {reader}") == (403, "read_only_key")
    assert _ask(secured, route, WRITING[route], Authorization=f"bearer {writer}") == (200, None)


@pytest.mark.parametrize("route", [*READING, *WRITING])
def test_without_keys_reading_is_open_and_changing_is_not(route: tuple[str, str]) -> None:
    client = TestClient(_app(Keys()))
    status, kind = _ask(client, route, {**READING, **WRITING}[route])
    assert (status, kind) in ([(200, None), (404, "no_such_passage")] if route in READING else [(403, "no_write_key")])


def test_the_way_to_a_write_key_is_said() -> None:
    response = TestClient(_app(Keys())).post("/v1/index/merge")
    assert "causalneg keys --role write" in response.json()["message"]


def test_a_body_is_not_read_for_who_has_no_key(secured: TestClient) -> None:
    assert secured.post("/v1/search", content=b"x" * 5_000_000).status_code == 401


def test_the_log_says_who_changed_what_and_holds_no_key(
    secured: TestClient, reader: str, writer: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="causalneg.serving")
    for route, body in {**READING, **WRITING}.items():
        for key in (reader, writer, "cn_wrong"):
            _ask(secured, route, body, X_API_Key=key)
    said = [r.getMessage() for r in caplog.records if r.name == "causalneg.serving"]
    assert said == [f"{method} {path} by the key of 'writer\\nroot'" for method, path in WRITING]
    for key in (reader, writer, "cn_wrong"):
        assert key not in caplog.text


def test_other_origins_are_let_in_only_when_named() -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    closed = TestClient(_app(Keys()))
    assert closed.options("/v1/search", headers=asked).status_code == 405
    assert "access-control-allow-origin" not in closed.get("/health", headers=asked).headers
    settings = ServeSettings(cors_origins=["https://a.example"])
    named = TestClient(create_app(Echo(), settings, Metrics(), Keys()))
    response = named.options("/v1/search", headers=asked | {"Access-Control-Request-Headers": "x-api-key"})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    other = named.get("/health", headers={"Origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers
