"""The clients with the served application over passages in memory."""

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import numpy as np
import pytest
from checks import QUESTION, check_client
from client_servers import MAX_WORDS, PASSAGES, Ask, MemoryService, encoded, found, scripted

from causalneg.client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnauthorizedError,
)
from causalneg.errors import UserError
from causalneg.filters import FieldCondition, Filter, Match
from causalneg.records import Passage
from causalneg.serving.schema import PassageBody


def test_everything_a_reader_may_do(url: str) -> None:
    check_client(url)


def test_everything_a_writer_may_do(guarded: tuple[str, str], service: MemoryService) -> None:
    check_client(*guarded)
    assert set(service.passages) == {passage.id for passage in PASSAGES}


def test_the_key_of_the_environment(guarded: tuple[str, str], ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    url, key = guarded
    with pytest.raises(UnauthorizedError) as refused:
        ask(url, "search", QUESTION)
    assert (refused.value.code, refused.value.type) == (401, "no_key")
    monkeypatch.setenv("CAUSALNEG_API_KEY", key)
    assert ask(url, "search", QUESTION)[0].id == "rome"
    assert ask(url + "/", "delete", "not there").changed == 1


def test_who_may_not_write_is_told(url: str, ask: Ask) -> None:
    with pytest.raises(UnauthorizedError, match="Nobody may change anything") as refused:
        ask(url, "upsert", PASSAGES)
    assert (refused.value.code, refused.value.type) == (403, "no_write_key")


def test_only_what_was_given_is_sent(ask: Ask) -> None:
    """What is left out or None is the server's to choose."""
    is_city = FieldCondition(key="kind", match=Match(except_=["river"]))
    with scripted(found("a")) as (url, requests):
        ask(url, "search", "ü", filter=None, limit=None, timeout_ms=None)
        ask(url, "search", ["q"], hybrid=True, rerank=False, offset=1, score_threshold=0.0)
        ask(url, "search", "q", filter=Filter(must=[is_city]))
    assert [json.loads(request.partition(b"\r\n\r\n")[2]) for request in requests] == [
        {"query": "ü"},
        {"queries": ["q"], "hybrid": True, "rerank": False, "offset": 1, "score_threshold": 0.0},
        {"query": "q", "filter": {"must": [{"key": "kind", "match": {"except": ["river"]}}]}},
    ]


def test_many_passages_are_sent_in_batches(guarded: tuple[str, str], ask: Ask, service: MemoryService) -> None:
    url, key = guarded
    passages = [PassageBody(id=str(number), text=f"text {number}") for number in range(21)]
    change = ask(url, "upsert", iter(passages), client={"api_key": key})
    assert (change.changed, change.change) == (21, service.change)
    assert [service.passages[passage.id] for passage in passages] == passages
    gone = ask(url, "delete", [passage.id for passage in passages], client={"api_key": key})
    assert gone.changed == 21
    assert [len(ids) for name, ids in service.calls if name == "upsert"] == [8, 8, 5]
    assert [len(ids) for name, ids in service.calls if name == "delete"] == [8, 8, 5]


def test_a_batch_that_is_too_large_is_halved(guarded: tuple[str, str], ask: Ask, service: MemoryService) -> None:
    """The body of the eight is above the server's 20 kB, that of any two is not."""
    url, key = guarded
    passages = [PassageBody(id=str(number), text="word " * 1500) for number in range(8)]
    change = ask(url, "upsert", passages, client={"api_key": key})
    assert (change.changed, change.truncated) == (8, [passage.id for passage in passages])
    sent = [name for call, ids in service.calls if call == "upsert" for name in ids]
    assert sent == [passage.id for passage in passages]
    with pytest.raises(TooLargeError) as refused:
        ask(url, "upsert", [PassageBody(id="0", text="word " * 5000)], client={"api_key": key})
    assert refused.value.code == 413


def test_passages_in_all_their_forms(guarded: tuple[str, str], ask: Ask, service: MemoryService) -> None:
    url, key = guarded
    row = Passage(id="row", title="T", text="x", metadata='{"n": 1}')
    body = PassageBody(id="body", text="y", metadata={"deep": {"list": [1, None, "ü"]}})
    ask(url, "upsert", [row, body, {"id": "dict", "text": "z"}], client={"api_key": key})
    assert service.passages["row"] == PassageBody(id="row", title="T", text="x", metadata={"n": 1})
    assert service.passages["body"] == body
    assert service.passages["dict"] == PassageBody(id="dict", text="z")
    ask(url, "upsert", row, client={"api_key": key})
    assert service.calls[-1] == ("upsert", ["row"])


def test_an_id_may_be_anything(guarded: tuple[str, str]) -> None:
    with Client(*guarded) as client:
        for name in ("a/b", "a//b/", "/", ".", "..", "../index", "ü 日本", "100%", "%2F", "?x=1", "#", "a;b", " "):
            assert client.get(name) is None
            client.upsert({"id": name, "text": "text"})
            there = client.get(name)
            assert there is not None
            assert there.id == name


def test_vectors_are_those_of_their_texts(url: str, ask: Ask, service: MemoryService) -> None:
    texts = [f"text number {number}" for number in range(19)]
    np.testing.assert_array_equal(ask(url, "embed", texts), np.stack([encoded(text) for text in texts]))
    assert [len(inputs) for _, inputs in service.calls] == [8, 8, 3]
    np.testing.assert_array_equal(ask(url, "embed", "one", kind="query"), encoded("query: one"))
    assert ask(url, "embed", texts, dimensions=5).shape == (19, 5)
    with pytest.raises(TooLargeError):
        ask(url, "embed", [*texts, "long " * (MAX_WORDS + 1)])
    with pytest.raises(InvalidRequestError):
        ask(url, "embed", [])


def test_versions_are_swapped(guarded: tuple[str, str], ask: Ask) -> None:
    url, key = guarded
    options = {"client": {"api_key": key}}
    assert ask(url, "versions", **options).active == "2"
    swap = ask(url, "activate", "1", **options)
    assert (swap.active, swap.previous) == ("1", "2")
    assert ask(url, "roll_back", **options).active == "2"
    assert ask(url, "merge", **options).state == "started"
    with pytest.raises(NotFoundError) as missing:
        ask(url, "activate", "3", **options)
    assert (missing.value.code, missing.value.type) == (404, "no_such_version")


def test_a_server_that_is_not_ready(url: str, ask: Ask, service: MemoryService, pauses: list[float]) -> None:
    service.not_ready = "The model is being loaded."
    assert ask(url, "ready") is False
    assert pauses == []
    service.not_ready = None
    assert ask(url, "ready") is True


def test_what_the_server_refuses_is_said(url: str, ask: Ask) -> None:
    with pytest.raises(InvalidRequestError, match="query is empty") as refused:
        ask(url, "search", "  ")
    assert (refused.value.code, refused.value.type) == (400, "empty_query")
    with pytest.raises(TooLargeError, match="at most 8"):
        ask(url, "search", [QUESTION] * 9)


@pytest.mark.parametrize(
    ("method", "value", "options", "words"),
    [
        ("search", "\ud800", {}, "surrogates not allowed"),
        ("search", "q", {"limit": 0}, "limit: "),
        ("search", "q", {"score_threshold": float("nan")}, "score_threshold: "),
        ("search", "q", {"filter": {"must": [{"key": "kind"}]}}, "filter.must.0"),
        ("search", "q", {"hybird": True}, "no argument 'hybird'; did you mean 'hybrid'?"),
        ("search", "q", {"k": 3}, "no argument 'k'; did you mean 'limit'?"),
        ("upsert", {"id": "", "text": "x"}, {}, "id: "),
        ("upsert", {"id": "when", "text": "x", "metadata": {"at": datetime(2025, 1, 1)}}, {}, "datetime"),
        ("upsert", {"id": "nan", "text": "x", "metadata": {"at": float("nan")}}, {}, "finite"),
        ("upsert", {"id": "bad", "text": "x", "metadata": "{"}, {}, "'bad' can't be sent: metadata: "),
        ("upsert", [], {}, "passages: "),
        ("delete", [], {}, "ids: "),
    ],
)
def test_what_cannot_be_asked_is_not_sent(
    method: str, value: object, options: dict[str, object], words: str, ask: Ask
) -> None:
    """Nothing listens there: it would be another error if it were sent."""
    with pytest.raises(InvalidRequestError) as refused:
        ask("http://127.0.0.1:9", method, value, **options)
    assert words in str(refused.value)
    assert refused.value.code is None


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8000", "ftp://host", "http://", "http://user:secret@host", "http://host/?key=secret", ""],
)
def test_an_address_that_is_none(address: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(UserError) as wrong:
            kind(address)
        assert "secret" not in str(wrong.value)


def test_a_key_that_is_none() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(UserError) as wrong:
            kind(api_key="sécret key")
        assert "cret" not in str(wrong.value)


def test_threads_share_a_client(url: str) -> None:
    with Client(url) as client, ThreadPoolExecutor(8) as pool:
        assert {hits[0].id for hits in pool.map(client.search, [QUESTION] * 40)} == {"rome"}


def test_one_event_loop_after_the_other(url: str) -> None:
    client = AsyncClient(url)
    for _ in range(3):
        assert asyncio.run(client.search(QUESTION))[0].id == "rome"


def test_importing_the_client_is_light() -> None:
    heavy = "'torch', 'ray', 'fastapi', 'pyarrow', 'faiss', 'transformers', 'numpy'"
    code = f"import causalneg.client, sys; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "library", "package"),
    [
        ("langchain", "langchain_core", "langchain-core"),
        ("llamaindex", "llama_index", "llama-index-core"),
        ("haystack", "haystack", "haystack-ai"),
    ],
)
def test_a_missing_library_is_named(module: str, library: str, package: str) -> None:
    code = f"import sys; sys.modules['{library}'] = None; import causalneg.client.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: causalneg.client.{module} needs ")
    assert f"pip install {package}" in done.stderr.splitlines()[-1]
