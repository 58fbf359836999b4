"""The LangChain retriever and embeddings."""

import pytest
from checks import QUESTION, check_langchain
from client_servers import MemoryService
from pydantic import ValidationError

from causalneg.client import UnauthorizedError
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
    retriever._client.upsert(
        {"id": "rome", "title": "Rome", "text": "Rome is the capital of Italy.", "metadata": {"score": 99, "n": 1}}
    )
    metadata = retriever.invoke(QUESTION)[0].metadata
    assert metadata == {"id": "rome", "title": "Rome", "score": before, "n": 1}


def test_no_texts_have_no_vectors() -> None:
    assert CausalNegEmbeddings("http://127.0.0.1:9").embed_documents([]) == []


def test_a_field_that_is_none() -> None:
    with pytest.raises(ValidationError):
        CausalNegRetriever(limit="many")
