"""Clients and retrievers that are copied, pickled, and used in other processes."""

import asyncio
import copy
import multiprocessing
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import pytest
from checks import QUESTION
from haystack.utils import Secret

from causalneg.client import AsyncClient, Client, UnauthorizedError, haystack, langchain, llamaindex

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),  # noqa: S301 - its own
    "cloudpickle": lambda made: cloudpickle.loads(cloudpickle.dumps(made)),
}
# What is made of an address and a key, and how it finds the best id.
KINDS: dict[str, tuple[Callable[[str, str], Any], Callable[[Any], str]]] = {
    "client": (Client, lambda made: made.search(QUESTION)[0].id),
    "async": (AsyncClient, lambda made: asyncio.run(made.search(QUESTION))[0].id),
    "langchain": (
        lambda url, key: langchain.CausalNegRetriever(url=url, api_key=key, k=1),
        lambda made: made.invoke(QUESTION)[0].id,
    ),
    "embeddings": (langchain.CausalNegEmbeddings, lambda made: ["", "rome"][len(made.embed_query("a")) > 1]),
    "llamaindex": (llamaindex.CausalNegRetriever, lambda made: made.retrieve(QUESTION)[0].node.node_id),
    "haystack": (
        lambda url, key: haystack.CausalNegRetriever(url, Secret.from_token(key)),
        lambda made: made.run(QUESTION)["documents"][0].id,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_works_as_the_first_does(kind: str, guarded: tuple[str, str]) -> None:
    """Before it was used and after, with the key that was given; no key is shown."""
    make, best = KINDS[kind]
    for how, copied in COPIES.items():
        made = make(*guarded)
        assert best(copied(made)) == "rome", how
        assert best(made) == "rome"
        again = copied(made)
        assert best(again) == best(made) == "rome", how
        assert guarded[1] not in repr(again) + str(again)


def _answer(make: Callable[[], str], end: Connection) -> None:
    end.send(make())


@pytest.mark.parametrize("kind", KINDS)
def test_forked_processes_have_connections_of_their_own(kind: str, guarded: tuple[str, str]) -> None:
    """The parent's connection is open when they are forked, and both ask at once."""
    make, best = KINDS[kind]
    made = make(*guarded)
    assert best(made) == "rome"
    forking = multiprocessing.get_context("fork")
    pipes = [forking.Pipe(duplex=False) for _ in range(3)]
    children = [forking.Process(target=_answer, args=(lambda: best(made), end)) for _, end in pipes]
    for child in children:
        child.start()
    assert [best(made) for _ in range(10)] == ["rome"] * 10
    assert [mine.recv() for mine, _ in pipes] == ["rome"] * 3
    for child in children:
        child.join()


def test_a_pool_of_processes_takes_a_client(url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, Client(url) as client:
        assert [hits[0].id for hits in pool.map(client.search, [QUESTION, QUESTION])] == ["rome", "rome"]


def test_a_key_of_the_environment_is_not_in_the_pickle(
    guarded: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, key = guarded
    monkeypatch.setenv("CAUSALNEG_API_KEY", key)
    pickled = pickle.dumps(Client(url))
    assert key.encode() not in pickled
    assert pickle.loads(pickled).search(QUESTION)[0].id == "rome"  # noqa: S301 - its own
    monkeypatch.delenv("CAUSALNEG_API_KEY")
    with pytest.raises(UnauthorizedError):
        pickle.loads(pickled).search(QUESTION)  # noqa: S301 - its own


def test_a_closed_client_opens_other_connections(url: str) -> None:
    with Client(url) as client:
        client.search(QUESTION)
    assert client.search(QUESTION)[0].id == "rome"


def test_a_changed_copy_asks_the_other_server(url: str) -> None:
    first = langchain.CausalNegRetriever(url="http://127.0.0.1:9", api_key="not-needed")
    assert first.model_copy(update={"url": url, "limit": 2}).invoke(QUESTION)[0].id == "rome"
