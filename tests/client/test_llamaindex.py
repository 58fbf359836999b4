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


def test_the_number_of_nodes_by_the_name_of_llamaindex(url: str) -> None:
    assert len(CausalNegRetriever(url, similarity_top_k=1).retrieve(QUESTION)) == 1
    assert len(CausalNegRetriever(url, verbose=True, callback_manager=None).retrieve(QUESTION)) == 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"limt": 3}, "CausalNegRetriever has no argument 'limt'; did you mean 'limit'?"),
        ({"top_k": 3}, "did you mean 'limit'?"),
        ({"filters": {}}, "did you mean 'filter'?"),
        ({"limit": 3, "similarity_top_k": 3}, "are the same"),
    ],
)
def test_an_argument_that_there_is_not_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(TypeError) as refused:
        CausalNegRetriever(**given)
    assert words in str(refused.value)
