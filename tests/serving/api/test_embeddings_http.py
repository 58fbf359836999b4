"""Embeddings over HTTP, in the shapes of OpenAI and of text-embeddings-inference; the real OpenAI client too."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from fastapi.testclient import TestClient
from serving_samples import Echo

from causalneg.config import ServeSettings
from causalneg.serving.api import create_app
from causalneg.serving.keys import Keys, add
from causalneg.serving.metrics import Metrics

THIRD = float(np.float32(1 / 3))


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def client(echo: Echo) -> Iterator[TestClient]:
    with TestClient(create_app(echo, ServeSettings(max_queries=3), Metrics(), Keys())) as client:
        yield client


def test_a_list_of_texts_is_answered_as_openai_does(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", json={"input": ["a", "bcd"], "model": "any"}).json()
    assert answer == {
        "object": "list",
        "model": "m",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, THIRD, -1.0, 0.0]},
            {"object": "embedding", "index": 1, "embedding": [3.0, THIRD, -1.0, 0.0]},
        ],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


def test_base64_holds_little_endian_floats(client: TestClient) -> None:
    (one,) = client.post("/v1/embeddings", json={"input": "ab", "encoding_format": "base64"}).json()["data"]
    assert np.frombuffer(base64.b64decode(one["embedding"]), "<f4").tolist() == [2.0, THIRD, -1.0, 0.0]


@pytest.mark.parametrize(
    ("given", "inputs"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]), (["\0"], ["\0"])],
)
def test_texts_and_tokens_reach_the_service(client: TestClient, echo: Echo, given: object, inputs: object) -> None:
    body = {"input": given, "dimensions": 2, "input_type": "query"}
    answer = client.post("/v1/embeddings", json=body).json()
    assert [len(d["embedding"]) for d in answer["data"]] == [2] * len(inputs)  # type: ignore[arg-type]
    assert echo.calls == [("embed", inputs, "query", 2, True, None)]


def test_tei_gives_bare_lists(client: TestClient, echo: Echo) -> None:
    body = {"inputs": "a" * 9, "truncate": True, "truncation_direction": "left", "normalize": False}
    assert client.post("/embed", json=body | {"prompt_name": "query"}).json() == [[9.0, THIRD, -1.0, 0.0]]
    assert client.post("/embed", json={"inputs": ["a", "b"], "dimensions": 1}).json() == [[1.0], [1.0]]
    assert client.post("/embed", json={"inputs": "a", "truncate": None}).status_code == 200
    assert [call[2:] for call in echo.calls] == [
        ("query", None, False, "left"),
        (None, 1, True, None),
        (None, None, True, None),
    ]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/embeddings", b'{"input": ""}', 400),
        ("/v1/embeddings", b'{"input": []}', 400),
        ("/v1/embeddings", b'{"input": ["a", ""]}', 400),
        ("/v1/embeddings", b'{"input": [[]]}', 400),
        ("/v1/embeddings", b'{"input": [[1], []]}', 400),
        ("/v1/embeddings", b'{"input": [-1]}', 422),
        ("/v1/embeddings", b'{"input": [[1], [2147483648]]}', 422),
        ("/v1/embeddings", b'{"input": [1e3]}', 422),
        ("/v1/embeddings", b'{"input": [true]}', 422),
        ("/v1/embeddings", b'{"input": [1, "a"]}', 422),
        ("/v1/embeddings", b'{"input": [1000]}', 422),
        ("/v1/embeddings", b'{"input": null}', 422),
        ("/v1/embeddings", b'{"input": "\\ud800"}', 422),
        ("/v1/embeddings", b'{"input": "a", "encoding_format": "hex"}', 422),
        ("/v1/embeddings", b'{"input": "a", "dimensions": 0}', 422),
        ("/v1/embeddings", b'{"input": "a", "dimensions": 5}', 422),
        ("/v1/embeddings", b'{"input": "123456789"}', 413),
        ("/v1/embeddings", json.dumps({"input": ["a"] * 10_000}).encode(), 413),
        ("/v1/embeddings", json.dumps({"input": [[1]] * 10_000}).encode(), 413),
        ("/embed", b'{"inputs": []}', 400),
        ("/embed", b'{"inputs": "a", "prompt_name": "none"}', 422),
        ("/embed", b'{"inputs": "a", "truncation_direction": "up"}', 422),
        ("/embed", b'{"inputs": "123456789"}', 413),
        ("/embed", json.dumps({"inputs": ["a"] * 4}).encode(), 413),
    ],
    ids=lambda value: value[:50].decode() if isinstance(value, bytes) else None,
)
def test_what_cannot_be_encoded_is_refused(client: TestClient, path: str, body: bytes, status: int) -> None:
    response = client.post(path, content=body)
    assert response.status_code == status, response.text
    assert response.json()["code"] == status


@pytest.fixture
def secured(echo: Echo, tmp_path: Path) -> tuple[httpx.ASGITransport, str]:
    """The interface with keys, and a key."""
    path = tmp_path / "keys.json"
    key = add(path, "somebody", "read")
    app = create_app(echo, ServeSettings(max_queries=3), Metrics(), Keys.read(path))
    return httpx.ASGITransport(app), key


def _openai(transport: httpx.ASGITransport, key: str) -> openai.AsyncOpenAI:
    http = httpx.AsyncClient(transport=transport)
    return openai.AsyncOpenAI(base_url="http://server/v1", api_key=key, http_client=http, max_retries=0)


@pytest.mark.parametrize("encoding", [openai.omit, "float", "base64"])
def test_the_openai_client_is_served(secured: tuple[httpx.ASGITransport, str], encoding: openai.Omit) -> None:
    async def ask() -> None:
        client = _openai(*secured)
        answer = await client.embeddings.create(input=["a", "bc"], model="m", encoding_format=encoding)
        wanted = [[1.0, THIRD, -1.0, 0.0], [2.0, THIRD, -1.0, 0.0]]
        if encoding == "base64":  # asked for by its name the client leaves it as it is
            wanted = [base64.b64encode(np.array(v, "<f4")).decode() for v in wanted]
        assert [d.embedding for d in answer.data] == wanted
        assert answer.usage.total_tokens == 3
        tokens = await client.embeddings.create(input=[[1, 2], [3]], model="m", dimensions=2)
        assert [d.embedding for d in tokens.data] == [[2.0, THIRD], [1.0, THIRD]]

    asyncio.run(ask())


def test_the_openai_client_understands_our_errors(secured: tuple[httpx.ASGITransport, str]) -> None:
    async def ask() -> None:
        transport, key = secured
        with pytest.raises(openai.AuthenticationError, match="not known"):
            await _openai(transport, "cn_wrong").embeddings.create(input="a", model="m")
        with pytest.raises(openai.BadRequestError, match="empty") as refused:
            await _openai(transport, key).embeddings.create(input="", model="m")
        assert refused.value.type == "empty_input"

    asyncio.run(ask())
