"""The LangChain retriever and embeddings."""

import asyncio

import pytest
from checks import QUESTION, check_langchain
from client_servers import MemoryService
from pydantic import ValidationError

from causalneg.client import Client, UnauthorizedError
from causalneg.client.langchain import CausalNegEmbeddings, CausalNegRetriever


def test_passages_are_found(url: str) -> None:
    check_langchain(url)


def test_passages_are_found_with_a_key(guarded: tuple[str, str]) -> None:
    check_langchain(*guarded)
    with pytest.raises(UnauthorizedError):
        CausalNegRetriever(url=guarded[0]).invoke(QUESTION)


def test_the_options_are_those_of_the_search(url: str, service: MemoryService) -> None:
    retriever = CausalNegRetriever(url=url, limit=2, hybrid=True, rerank=True, score_threshold=0.1)
    assert [document.metadata["title"] for document in retriever.invoke(QUESTION)] == ["Rome", "Po"]
    retriever.invoke(QUESTION, limit=1, hybrid=False, filter={"must": [{"has_id": ["po"]}]})
    first, second = (request for _, request in service.calls)
    assert (first.limit, first.hybrid, first.rerank, first.score_threshold) == (2, True, True, 0.1)
    assert (second.limit, second.hybrid, second.rerank, second.score_threshold) == (1, False, True, 0.1)
    assert second.filter.must[0].has_id == ["po"]


def test_the_key_is_not_shown(guarded: tuple[str, str]) -> None:
    retriever = CausalNegRetriever(url=guarded[0], api_key=guarded[1])
    assert guarded[1] not in repr(retriever) + str(retriever) + retriever.model_dump_json()


def test_a_passage_cannot_give_itself_another_score(guarded: tuple[str, str]) -> None:
    url, key = guarded
    retriever = CausalNegRetriever(url=url, api_key=key, limit=1)
    before = retriever.invoke(QUESTION)[0].metadata["score"]
    Client(url, key).upsert(
        {"id": "rome", "title": "Rome", "text": "Rome is the capital of Italy.", "metadata": {"score": 99, "n": 1}}
    )
    metadata = retriever.invoke(QUESTION)[0].metadata
    assert metadata == {"id": "rome", "title": "Rome", "score": before, "n": 1}


def test_no_texts_have_no_vectors() -> None:
    assert CausalNegEmbeddings("http://127.0.0.1:9").embed_documents([]) == []


def test_a_field_that_is_none() -> None:
    with pytest.raises(ValidationError):
        CausalNegRetriever(limit="many")


@pytest.mark.parametrize("name", ["k", "top_k", "limit"])
def test_the_number_of_documents_by_the_names_of_langchain(name: str, url: str, service: MemoryService) -> None:
    """At construction, among `search_kwargs`, later, and in a call: the later has precedence."""
    for retriever in (CausalNegRetriever(url=url, **{name: 1}), CausalNegRetriever(url=url, search_kwargs={name: 1})):
        assert len(retriever.invoke(QUESTION)) == 1
        assert len(retriever.invoke(QUESTION, **{name: 2}, verbose=True)) == 2
        assert len(retriever.bind(**{name: 3}).invoke(QUESTION)) == 3
        retriever.search_kwargs[name] = 4
        assert len(retriever.invoke(QUESTION)) == 4
        assert len(asyncio.run(retriever.ainvoke(QUESTION, **{name: 2}))) == 2


def test_search_kwargs_are_the_options_of_the_search(url: str, service: MemoryService) -> None:
    river = {"must": [{"key": "kind", "match": {"value": "river"}}]}
    retriever = CausalNegRetriever(url=url, hybrid=True, search_kwargs={"k": 3, "filter": river, "hybrid": False})
    assert [document.id for document in retriever.invoke(QUESTION)] == ["po"]
    _, asked = service.calls[-1]
    assert (asked.limit, asked.hybrid) == (3, False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"limt": 3}, "CausalNegRetriever has no argument 'limt'; did you mean 'limit'?"),
        ({"n_results": 3}, "did you mean 'limit'?"),
        ({"filters": {}}, "did you mean 'filter'?"),
        ({"base_url": "http://127.0.0.1:9"}, "did you mean 'url'?"),
        ({"zzz": 3}, "CausalNegRetriever has no argument 'zzz'; it has name, tags, metadata, url, "),
        ({"search_kwargs": {"fetch_k": 3}}, "search_kwargs has no argument 'fetch_k'; did you mean "),
        ({"k": 3, "limit": 3}, "'k' and 'limit', which are the same"),
        ({"search_kwargs": {"k": 3, "top_k": 3}}, "'k' and 'top_k', which are the same"),
    ],
)
def test_an_argument_that_there_is_not_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(TypeError) as refused:
        CausalNegRetriever(**given)
    assert words in str(refused.value)
    if "search_kwargs" in given:
        with pytest.raises(TypeError):
            CausalNegRetriever(url="http://127.0.0.1:9").invoke(QUESTION, **given["search_kwargs"])


def test_the_embeddings_refuse_it_too() -> None:
    with pytest.raises(TypeError, match="CausalNegEmbeddings has no argument 'dimension'; did you mean 'dimensions'"):
        CausalNegEmbeddings(dimension=8)
