"""The LlamaIndex retriever."""

import pytest
from checks import QUESTION, check_llamaindex
from client_servers import MemoryService

from causalneg.client import UnauthorizedError
from causalneg.client.llamaindex import CausalNegRetriever


def test_passages_are_found(url: str) -> None:
    check_llamaindex(url)


def test_passages_are_found_with_a_key(guarded: tuple[str, str]) -> None:
    check_llamaindex(*guarded)
    with pytest.raises(UnauthorizedError):
        CausalNegRetriever(guarded[0]).retrieve(QUESTION)


def test_the_options_are_those_of_the_search(url: str, service: MemoryService) -> None:
    retriever = CausalNegRetriever(url, limit=2, hybrid=True, rerank=True, score_threshold=0.1)
    assert [node.node.node_id for node in retriever.retrieve(QUESTION)] == ["rome", "po"]
    _, asked = service.calls[-1]
    assert (asked.limit, asked.hybrid, asked.rerank, asked.score_threshold) == (2, True, True, 0.1)
