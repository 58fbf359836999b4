"""What clients and retrievers must do with any server that holds the passage `rome`.

It has the title Rome, the text "Rome is the capital of Italy." and the metadata {"kind": "city"}, perhaps among
others, and is the first to be found for the question below. The libraries are kept from phoning home.
"""

import asyncio
import os
import uuid
from typing import Any

import numpy as np
import pytest

from causalneg.client import AsyncClient, Client, Filter, UnauthorizedError

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["LANGCHAIN_TRACING_V2"] = os.environ["LANGSMITH_TRACING"] = "false"

QUESTION = "What is the capital of Italy?"
TEXT = "Rome is the capital of Italy."
CITIES = {"must": [{"key": "kind", "match": {"value": "city"}}]}


def check_client(url: str, key: str | None = None) -> None:
    """Use both clients in all they can do without harm; with a key, which may write, passages are changed too."""
    with Client(url, key) as client:
        assert client.ready()
        assert client.health().status == "ok"
        _check_reading(client)
        if key is not None:
            _check_writing(client)
            assert key not in repr(client)
    asyncio.run(_check_async_client(url, key))


def _check_reading(client: Client) -> None:
    info = client.info()
    best = client.search(QUESTION, limit=3)[0]
    assert best.id == "rome"
    assert best.payload is not None
    assert (best.payload.title, best.payload.text) == ("Rome", TEXT)
    assert best.payload.metadata["kind"] == "city"

    assert client.search([QUESTION, "a river", QUESTION], limit=2)[2][0].id == "rome"
    assert [hit.id for hit in client.search(QUESTION, limit=2)][1:] == [
        hit.id for hit in client.search(QUESTION, limit=1, offset=1)
    ]
    for conditions in (CITIES, Filter.model_validate(CITIES)):
        hits = client.search(QUESTION, filter=conditions)
        assert hits[0].id == "rome"
        assert all(hit.payload and hit.payload.metadata["kind"] == "city" for hit in hits)
    assert client.search(QUESTION, filter={"must_not": [{"has_id": ["rome"]}]}, limit=1)[0].id != "rome"
    assert all(hit.payload is None for hit in client.search(QUESTION, with_payload=False))
    assert client.search(QUESTION, score_threshold=1e6) == []
    assert client.search_response(QUESTION, timeout_ms=10_000).index_version == info.index_version

    _check_vectors(client.embed([QUESTION, TEXT], "query"), info.dimension)
    assert client.embed(TEXT, dimensions=8).shape == (8,)
    passage = client.get("rome")
    assert passage is not None
    assert passage.text == TEXT
    assert client.get("no such passage") is None
    assert info.index_version in [version.version for version in client.versions().versions]


def _check_vectors(vectors: np.ndarray, dimension: int) -> None:
    assert vectors.shape == (2, dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def _check_writing(client: Client) -> None:
    name = f"check/{uuid.uuid4()} ü?%2F#"
    text = "The vermilion quokka juggles seventeen theodolites."
    passage = {"id": name, "title": "Quokka", "text": text, "metadata": {"kind": "check", "size": 17}}
    assert client.upsert(passage).changed == 1
    try:
        assert client.search(text, limit=1)[0].id == name
        wanted = {
            "must": [{"key": "size", "range": {"gte": 17, "lt": 18}}, {"key": "kind", "match": {"any": ["check"]}}]
        }
        assert name in [hit.id for hit in client.search(QUESTION, filter=wanted)]
        there = client.get(name)
        assert there is not None
        assert there.model_dump() == passage
    finally:
        client.delete([name])
    assert client.get(name) is None
    assert name not in [hit.id for hit in client.search(text)]


async def _check_async_client(url: str, key: str | None) -> None:
    async with AsyncClient(url, key) as client:
        answers = await asyncio.gather(*(client.search(QUESTION) for _ in range(8)))
        assert {hits[0].id for hits in answers} == {"rome"}
        several = await client.search([QUESTION, QUESTION])
        assert [hits[0].id for hits in several] == ["rome", "rome"]
        assert await client.ready()
        _check_vectors(await client.embed([QUESTION, TEXT]), (await client.info()).dimension)
    if key is not None:
        async with AsyncClient(url, "not-the-key") as stranger:
            with pytest.raises(UnauthorizedError):
                await stranger.search(QUESTION)


def check_langchain(url: str, key: str | None = None) -> None:
    """Find a passage with LangChain, by itself and in a chain, waiting and awaiting."""
    from langchain_core.documents import Document
    from langchain_core.runnables import RunnableLambda

    from causalneg.client.langchain import CausalNegEmbeddings, CausalNegRetriever

    retriever = CausalNegRetriever(url=url, api_key=key, limit=3, filter=CITIES)

    def titles(documents: list[Document]) -> list[Any]:
        return [document.metadata["title"] for document in documents]

    best = retriever.invoke(QUESTION)[0]
    assert (best.id, best.page_content) == ("rome", TEXT)
    assert best.metadata["id"] == "rome"
    assert best.metadata["kind"] == "city"
    assert isinstance(best.metadata["score"], float)
    chain = retriever | RunnableLambda(titles)
    assert chain.invoke(QUESTION)[0] == "Rome"
    assert asyncio.run(chain.ainvoke(QUESTION)) == chain.invoke(QUESTION)
    assert asyncio.run(retriever.ainvoke(QUESTION))[0] == best
    assert [len(documents) for documents in retriever.batch([QUESTION, QUESTION], limit=1)] == [1, 1]

    embeddings = CausalNegEmbeddings(url, key)
    documents, query = embeddings.embed_documents([TEXT, "A river."]), embeddings.embed_query(QUESTION)
    assert np.argmax(np.array(documents) @ np.array(query)) == 0
    np.testing.assert_allclose(asyncio.run(embeddings.aembed_query(QUESTION)), query, atol=1e-2)
    np.testing.assert_allclose(asyncio.run(embeddings.aembed_documents([TEXT]))[0], documents[0], atol=1e-2)


def check_llamaindex(url: str, key: str | None = None) -> None:
    """Find a passage with LlamaIndex, waiting and awaiting."""
    from causalneg.client.llamaindex import CausalNegRetriever

    retriever = CausalNegRetriever(url, key, limit=3, filter=CITIES)
    for nodes in (retriever.retrieve(QUESTION), asyncio.run(retriever.aretrieve(QUESTION))):
        best = nodes[0]
        assert (best.node.node_id, best.text) == ("rome", TEXT)
        assert best.metadata["title"] == "Rome"
        assert best.metadata["kind"] == "city"
        assert best.score is not None
        assert [node.score for node in nodes] == sorted((node.score or 0 for node in nodes), reverse=True)


def check_haystack(url: str, key: str | None = None) -> None:
    """Find a passage with a Haystack pipeline, waiting and awaiting, saved and loaded."""
    from haystack import Pipeline
    from haystack.utils import Secret

    from causalneg.client.haystack import CausalNegRetriever

    is_city = {"field": "meta.kind", "operator": "==", "value": "city"}
    secret = Secret.from_token(key) if key else None
    pipeline = Pipeline()
    pipeline.add_component("retriever", CausalNegRetriever(url, secret, top_k=3, filters=is_city))
    asked = {"retriever": {"query": QUESTION}}
    for result in (pipeline.run(asked), asyncio.run(pipeline.run_async(asked))):
        best = result["retriever"]["documents"][0]
        assert (best.id, best.content) == ("rome", TEXT)
        assert best.meta["title"] == "Rome"
        assert best.meta["kind"] == "city"
        assert best.score is not None
    not_rome = {"operator": "NOT", "conditions": [{"field": "id", "operator": "in", "value": ["rome"]}]}
    others = pipeline.run({"retriever": {"query": QUESTION, "filters": not_rome, "top_k": 1}})
    assert [document.id for document in others["retriever"]["documents"]] != ["rome"]
    if secret is None:
        again = Pipeline.loads(pipeline.dumps(), allowed_modules=["causalneg.client.*"])
        assert again.run(asked)["retriever"]["documents"][0].id == "rome"
