"""The Haystack component and its filters."""

from typing import Any

import pytest
from checks import QUESTION, check_haystack
from client_servers import MemoryService, matches
from haystack import Document, Pipeline
from haystack.errors import FilterError
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter
from hypothesis import given
from hypothesis import strategies as st

from causalneg.client import UnauthorizedError
from causalneg.client.haystack import CausalNegRetriever, as_filter


def test_passages_are_found(url: str) -> None:
    check_haystack(url)


def test_passages_are_found_with_a_key(guarded: tuple[str, str]) -> None:
    check_haystack(*guarded)
    with pytest.raises(UnauthorizedError):
        CausalNegRetriever(guarded[0], None).run(QUESTION)


def test_a_saved_pipeline_has_the_name_of_the_key(guarded: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    url, key = guarded
    monkeypatch.setenv("MY_KEY", key)
    river = {"field": "meta.kind", "operator": "==", "value": "river"}
    retriever = CausalNegRetriever(url, Secret.from_env_var("MY_KEY"), top_k=2, filters=river, timeout=9)
    pipeline = Pipeline()
    pipeline.add_component("retriever", retriever)
    saved = pipeline.dumps()
    assert key not in saved
    assert "MY_KEY" in saved
    loaded = Pipeline.loads(saved, allowed_modules=["causalneg.client.*"])
    assert loaded.get_component("retriever").to_dict() == retriever.to_dict()
    documents = loaded.run({"retriever": {"query": QUESTION}})["retriever"]["documents"]
    assert [document.id for document in documents] == ["po"]
    everything = loaded.run({"retriever": {"query": QUESTION, "top_k": 4, "filters": {}}})["retriever"]["documents"]
    assert len(everything) == 4


def test_the_options_are_those_of_the_search(url: str, service: MemoryService) -> None:
    CausalNegRetriever(url, None, top_k=2, hybrid=True, rerank=True, score_threshold=0.1).run(QUESTION)
    _, asked = service.calls[-1]
    assert (asked.limit, asked.hybrid, asked.rerank, asked.score_threshold) == (2, True, True, 0.1)


_WORDS = st.sampled_from(["red", "green", "blue"])
_NUMBERS = st.sampled_from([-1, 0, 0.5, 2, 3])
_FIELDS = st.sampled_from(["meta.colour", "meta.size", "meta.by.name", "size", "id", "meta.none"])
_SIZES = st.sampled_from(["meta.size", "size", "meta.none"])


def _comparison(field: str, operator: str, value: object) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


_comparisons = st.one_of(
    st.builds(_comparison, _FIELDS, st.sampled_from(["==", "!="]), _WORDS),
    st.builds(_comparison, _FIELDS, st.sampled_from(["in", "not in"]), st.lists(_WORDS, max_size=3)),
    st.builds(_comparison, _SIZES, st.sampled_from(["==", "!=", ">", ">=", "<", "<="]), _NUMBERS),
)
_filters = st.recursive(
    _comparisons,
    lambda parts: st.fixed_dictionaries(
        {"operator": st.sampled_from(["AND", "OR", "NOT"]), "conditions": st.lists(parts, min_size=1, max_size=3)}
    ),
    max_leaves=6,
)
_metas = st.fixed_dictionaries(
    {}, optional={"colour": _WORDS, "size": _NUMBERS, "by": st.fixed_dictionaries({}, optional={"name": _WORDS})}
)


@given(_filters, st.lists(st.tuples(_WORDS, _metas), min_size=1, max_size=5))
def test_a_filter_means_what_haystack_means(
    filters: dict[str, Any], passages: list[tuple[str, dict[str, Any]]]
) -> None:
    """The reference is Haystack's own; filters that are nested too deep for the server are refused."""
    try:
        converted = as_filter(filters)
    except FilterError as error:
        assert "nested deeper" in str(error)  # noqa: PT017
        return
    assert converted is not None
    for name, meta in passages:
        expected = document_matches_filter(filters, Document(id=name, content="text", meta=meta))
        assert matches(converted, name, meta) == expected


def test_no_filter() -> None:
    assert as_filter(None) is None
    assert as_filter({}) is None


def test_what_must_all_hold_is_not_nested() -> None:
    """So that more of Haystack's filters fit into the server's depth."""
    size = [_comparison("meta.size", ">=", 1), _comparison("meta.size", "!=", 2)]
    inner = {"operator": "AND", "conditions": [*size, _comparison("id", "==", "a")]}
    filters = {"operator": "AND", "conditions": [{"operator": "AND", "conditions": [inner]}]}
    converted = as_filter(filters)
    assert converted is not None
    assert converted.model_dump(exclude_unset=True) == {
        "must": [{"key": "size", "range": {"gte": 1.0}}, {"has_id": ["a"]}],
        "must_not": [{"key": "size", "match": {"value": 2}}],
    }


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (_comparison("meta.at", ">", "2025-01-01"), "compares numbers only"),
        (_comparison("meta.at", "<=", None), "compares numbers only"),
        (_comparison("meta.at", "<", True), "compares numbers only"),
        (_comparison("id", ">", 1), "no number"),
        (_comparison("meta.at", "==", None), "None for 'meta.at'"),
        (_comparison("meta.at", "==", ["a"]), "['a'] for 'meta.at'"),
        (_comparison("meta.at", "in", "abc"), "must be a list"),
        (_comparison("meta.at", "in", [["a"]]), "['a'] for 'meta.at'"),
        (_comparison("meta.at", "like", "a"), "no operator 'like'"),
        (_comparison("content", "==", "a"), "not by 'content'"),
        (_comparison("score", ">", 0.5), "not by 'score'"),
        (_comparison("meta.at", "==", float("nan")), "no filter"),
        (_comparison("id", "==", 7), "no filter"),
        ({"field": "meta.at", "operator": "=="}, "no value"),
        ({"field": "meta.at", "value": 1}, "with an operator"),
        ({"operator": "XOR", "conditions": []}, "no logical operator 'XOR'"),
        ({"operator": "OR", "conditions": []}, "OR needs a list of conditions"),
        ({"operator": "AND"}, "AND needs a list of conditions"),
        ({"operator": "AND", "conditions": ["meta.at"]}, "'meta.at' is not"),
        ({"operator": "AND", "conditions": [_comparison("meta.at", "==", 1)] * 65}, "more than 64"),
    ],
)
def test_what_the_server_has_no_filter_for(condition: dict[str, Any], words: str) -> None:
    with pytest.raises(FilterError) as refused:
        as_filter(condition)
    assert words in str(refused.value)
    with pytest.raises(FilterError):
        CausalNegRetriever(filters=condition)


@pytest.mark.parametrize(("name", "nearest"), [("limit", "top_k"), ("k", "top_k"), ("filter", "filters")])
def test_an_argument_that_there_is_not_is_refused(name: str, nearest: str) -> None:
    with pytest.raises(TypeError, match=f"has no argument '{name}'; did you mean '{nearest}'"):
        CausalNegRetriever(**{name: 3})
    saved = CausalNegRetriever().to_dict()
    saved["init_parameters"][name] = 3
    with pytest.raises(TypeError, match=f"did you mean '{nearest}'"):
        CausalNegRetriever.from_dict(saved)
