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
    with TestClient(create_app(echo, ServeSettings(max_inputs=3), Metrics(), Keys())) as client:
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
    [("a", ["a"]), (["a", "b"], ["a", "b"]), (["\0"], ["\0"])],
)
def test_texts_reach_the_service(client: TestClient, echo: Echo, given: object, inputs: list[str]) -> None:
    body = {"input": given, "dimensions": 2, "input_type": "query"}
    answer = client.post("/v1/embeddings", json=body).json()
    assert [len(d["embedding"]) for d in answer["data"]] == [2] * len(inputs)
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
        ("/v1/embeddings", b'{"input": [[]]}', 422),
        ("/v1/embeddings", b'{"input": [[1], []]}', 422),
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
        ("/v1/embeddings", json.dumps({"input": [[1]] * 10_000}).encode(), 422),
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
    app = create_app(echo, ServeSettings(), Metrics(), Keys.read(path))
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
        short = await client.embeddings.create(input=["ab", "c"], model="m", dimensions=2)
        assert [d.embedding for d in short.data] == [[2.0, THIRD], [1.0, THIRD]]
        many = await client.embeddings.create(input=["a"] * 2048, model="m")
        assert [d.index for d in many.data] == list(range(2048))
        cut = await client.embeddings.create(input="123456789", model="m", extra_body={"truncate": True})
        assert len(cut.data[0].embedding) == 4

    asyncio.run(ask())


@pytest.mark.parametrize("given", [[1, 2], [[1, 2], [3]], [[]]])
def test_token_ids_are_refused_with_the_way_to_send_texts(
    secured: tuple[httpx.ASGITransport, str], echo: Echo, given: list[int]
) -> None:
    async def ask() -> None:
        with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False") as refused:
            await _openai(*secured).embeddings.create(input=given, model="m")
        assert (refused.value.param, refused.value.code) == ("input", "invalid_request")

    asyncio.run(ask())
    assert echo.calls == []


def test_what_is_null_is_as_if_it_were_not_there(client: TestClient) -> None:
    names = ("model", "encoding_format", "dimensions", "user", "input_type", "truncate")
    answer = client.post("/v1/embeddings", json={"input": "ab", **dict.fromkeys(names)})
    assert answer.json()["data"][0]["embedding"] == [2.0, THIRD, -1.0, 0.0]


def test_too_long_inputs_are_cut_when_that_is_asked_for(client: TestClient, echo: Echo) -> None:
    assert client.post("/v1/embeddings", json={"input": "123456789"}).status_code == 413
    assert client.post("/v1/embeddings", json={"input": "123456789", "truncate": True}).status_code == 200
    assert [call[-1] for call in echo.calls] == [None, "right"]


def test_the_openai_client_lists_the_model(secured: tuple[httpx.ASGITransport, str]) -> None:
    async def ask() -> None:
        client = _openai(*secured)
        (model,) = (await client.models.list()).data
        assert (model.id, model.object, model.owned_by) == ("m", "model", "causalneg")
        assert await client.models.retrieve("m") == model
        with pytest.raises(openai.NotFoundError, match="There is no model 'a/b'; there is 'm'") as refused:
            await client.models.retrieve("a/b")
        assert (refused.value.type, refused.value.param) == ("model_not_found", "model")

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/v1/embeddings", b'{"input": 7}', "input"),
        ("POST", "/v1/embeddings", b'{"input": ["a", 7]}', "input"),
        ("POST", "/v1/embeddings", b'{"input": ""}', "input"),
        ("POST", "/v1/embeddings", b"{", None),
        ("GET", "/v1/embeddings", b"", None),
        ("GET", "/v1/models/none", b"", "model"),
        ("POST", "/v1/models", b"", None),
    ],
)
def test_errors_have_the_form_of_openai_as_well(
    client: TestClient, method: str, path: str, body: bytes, param: str | None
) -> None:
    answer = client.request(method, path, content=body).json()
    assert set(answer) == {"code", "message", "type", "error"}
    expected = {"message": answer["message"], "type": answer["type"], "param": param, "code": answer["type"]}
    assert answer["error"] == expected
    for internal in ("list[", "str:", "Value error", "function-"):
        assert internal not in answer["message"]


def test_our_own_failure_has_that_form_too(echo: Echo) -> None:
    client = TestClient(create_app(echo, ServeSettings(), Metrics(), Keys()), raise_server_exceptions=False)
    echo.info = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    assert client.get("/v1/models").json()["error"]["type"] == "internal"


def test_the_openai_client_understands_our_errors(secured: tuple[httpx.ASGITransport, str]) -> None:
    async def ask() -> None:
        transport, key = secured
        with pytest.raises(openai.AuthenticationError, match="not known"):
            await _openai(transport, "cn_wrong").embeddings.create(input="a", model="m")
        with pytest.raises(openai.BadRequestError, match="empty") as refused:
            await _openai(transport, key).embeddings.create(input="", model="m")
        assert refused.value.type == "empty_input"

    asyncio.run(ask())
