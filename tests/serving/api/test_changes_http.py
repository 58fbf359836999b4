"""Passages and index versions over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from serving_samples import Echo

from causalneg.config import ServeSettings
from causalneg.serving.api import create_app
from causalneg.serving.keys import Keys, add
from causalneg.serving.metrics import Metrics


def _client(folder: Path) -> TestClient:
    key = add(folder / "keys.json", "writer", "write")
    app = create_app(Echo(), ServeSettings(max_queries=3), Metrics(), Keys.read(folder / "keys.json"))
    return TestClient(app, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with _client(tmp_path) as client:
        yield client


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return _client(tmp_path_factory.mktemp("keys"))


def test_a_passage_comes_goes_and_is_looked_at(client: TestClient) -> None:
    passage = {"id": "a/b c?", "title": "T", "text": "t", "metadata": {"year": 2000, "tags": ["x", None, {"y": 1.5}]}}
    changed = client.post("/v1/passages", json={"passages": [passage, {"id": "2", "text": "u"}]}).json()
    assert changed == {"changed": 2, "change": 2, "index_version": "v2", "truncated": []}
    assert client.get(f"/v1/passages/{quote(passage['id'])}").json() == passage
    assert client.get("/v1/passages/2").json() == {"id": "2", "title": "", "text": "u", "metadata": {}}
    assert client.post("/v1/passages/delete", json={"ids": ["2"]}).json()["change"] == 3
    assert client.request("DELETE", "/v1/passages", json={"ids": [passage["id"]]}).json()["changed"] == 1
    for gone in ("2", quote(passage["id"])):
        response = client.get(f"/v1/passages/{gone}")
        assert (response.status_code, response.json()["type"]) == (404, "no_such_passage")


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=20).filter(
        lambda t: t not in (".", "..")
    )
)
def test_whatever_the_id_it_is_found_by_it(shared_client: TestClient, identity: str) -> None:
    body = {"passages": [{"id": identity, "text": "t"}]}
    assert shared_client.post("/v1/passages", json=body).status_code == 200
    assert shared_client.get(f"/v1/passages/{quote(identity, safe='')}").json()["id"] == identity


@pytest.mark.parametrize("sign", ["\n", "\r", "\t", "\0", "\x1b", "\x85", "\u2028", "\u2029"])
def test_an_id_is_one_line(client: TestClient, sign: str) -> None:
    passages = [{"id": "a", "text": "t"}, {"id": f"b{sign}c", "text": "t"}]
    refused = client.post("/v1/passages", json={"passages": passages})
    assert refused.status_code == 422
    assert refused.json()["message"].startswith("passages.1.id: an id may hold no line break")
    assert client.post("/v1/passages/delete", json={"ids": [f"b{sign}c"]}).status_code == 200, "it may be an old one"


@pytest.mark.parametrize("text", [" ", "\n\t", "\u00a0\u2003"])
def test_blank_text_is_refused(client: TestClient, text: str) -> None:
    refused = client.post("/v1/passages", json={"passages": [{"id": "a", "title": "T", "text": text}]})
    assert refused.status_code == 422
    assert refused.json()["message"].startswith("passages.0.text: the text is blank")


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("", b'{"passages": []}', 422, "passages"),
        ("", b'{"passages": [{"id": "", "text": "t"}]}', 422, "passages.0.id"),
        ("", b'{"passages": [{"id": "a", "text": ""}]}', 422, "passages.0.text"),
        ("", b'{"passages": [{"id": "a", "text": "\\udc00"}]}', 422, ""),
        ("", b'{"passages": [{"id": "a", "text": "t", "metadata": []}]}', 422, "passages.0.metadata"),
        ("", b'{"passages": [{"id": "a", "text": "t", "metadata": {"x": [NaN]}}]}', 422, "finite"),
        ("", b'{"passages": [{"id": "a", "text": "t", "metadata": {"x": 1e999}}]}', 422, "finite"),
        ("", b'{"passages": [{"id": "a", "text": "t", "vector": []}]}', 422, "passages.0.vector"),
        ("", b'{"passages": [' + b",".join([b'{"id": "a", "text": "t"}'] * 4) + b"]}", 413, "at most 3"),
        ("/delete", b'{"ids": []}', 422, "ids"),
        ("/delete", b'{"ids": [1]}', 422, "ids.0"),
        ("/delete", b'{"ids": ["a", "b", "c", "d"]}', 413, "at most 3"),
    ],
    ids=lambda value: value[:60].decode() if isinstance(value, bytes) else None,
)
def test_what_is_no_change_is_refused(client: TestClient, path: str, body: bytes, status: int, text: str) -> None:
    response = client.post(f"/v1/passages{path}", content=body)
    assert response.status_code == status, response.text
    assert text in response.json()["message"]


def test_versions_are_listed_and_swapped(client: TestClient) -> None:
    listed = client.get("/v1/index").json()
    assert (listed["active"], [v["version"] for v in listed["versions"]]) == ("v2", ["v2", "v1"])
    swapped = client.post("/v1/index/activate", json={"version": "v1"}).json()
    assert (swapped["active"], swapped["previous"]) == ("v1", "v2")
    assert client.post("/v1/index/rollback").json()["active"] == "v2"
    assert client.post("/v1/index/merge").json() == {"state": "started", "change": 0}
    unknown = client.post("/v1/index/activate", json={"version": "../x"})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "no_such_version")
