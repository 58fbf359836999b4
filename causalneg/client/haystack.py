"""The served retriever as a Haystack component, with Haystack's filters."""

import json
from typing import Any

from pydantic import ValidationError

from causalneg.client import AsyncClient, Client, Filter, SearchHit, SearchOptions
from causalneg.client.arguments import refusing_unknown

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.errors import FilterError
    from haystack.utils import Secret
except ImportError as error:
    raise ImportError("causalneg.client.haystack needs Haystack; install it with `pip install haystack-ai`.") from error

_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_NO_METADATA = ("content", "blob", "score", "embedding", "sparse_embedding", "meta")  # fields of a Haystack document


@component
class CausalNegRetriever:
    """Finds passages with a causalneg server: documents with the passages' ids, and their title in `meta`.

    Args:
        url: the server's address.
        api_key: kept as the name of an environment variable when a pipeline is saved.
        top_k: largest number of documents.
        filters: conditions on the documents' `meta` in Haystack's syntax; those given to `run` take their place.
        score_threshold: lowest score of a document.
        hybrid: fuse with BM25 by reciprocal rank.
        rerank: score the best hits anew with the server's cross-encoder.
        timeout: seconds that a search may take in all.

    Copies and pickles are as those of `Client`.

    Raises:
        TypeError: there is no such argument; the message names the nearest.
        FilterError: the server can't look for what the filters ask.
    """

    @refusing_unknown
    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: Secret | None = Secret.from_env_var("CAUSALNEG_API_KEY", strict=False),  # noqa: B008 - as Haystack has it
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
        score_threshold: float | None = None,
        hybrid: bool = False,
        rerank: bool = False,
        timeout: float = 30.0,
    ) -> None:
        self.url = url
        self.api_key = api_key
        self.top_k = top_k
        self.filters = filters
        self.score_threshold = score_threshold
        self.hybrid = hybrid
        self.rerank = rerank
        self.timeout = timeout
        as_filter(filters)
        key = api_key.resolve_value() if api_key else None
        self._client = Client(url, key, timeout=timeout)
        self._async_client = AsyncClient(url, key, timeout=timeout)

    def to_dict(self) -> dict[str, Any]:
        """Return what makes the same component again."""
        return default_to_dict(
            self,
            url=self.url,
            api_key=self.api_key,
            top_k=self.top_k,
            filters=self.filters,
            score_threshold=self.score_threshold,
            hybrid=self.hybrid,
            rerank=self.rerank,
            timeout=self.timeout,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "CausalNegRetriever":
        """Make the component that `to_dict` described."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """Return the documents for a query, best first."""
        hits = self._client.search(query, **self._options(top_k, filters))
        return {"documents": [_document(hit) for hit in hits]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """Return the documents for a query, best first."""
        hits = await self._async_client.search(query, **self._options(top_k, filters))
        return {"documents": [_document(hit) for hit in hits]}

    def _options(self, top_k: int | None, filters: dict[str, Any] | None) -> SearchOptions:
        return SearchOptions(
            limit=self.top_k if top_k is None else top_k,
            filter=as_filter(self.filters if filters is None else filters),
            score_threshold=self.score_threshold,
            hybrid=self.hybrid,
            rerank=self.rerank,
        )


def as_filter(filters: dict[str, Any] | None) -> Filter | None:
    """Turn filters of Haystack into one of the server; None for none.

    Where a field holds a list, `==` and `in` look for one of its values.

    Raises:
        FilterError: they can't be turned: comparisons with None, dates or lists, fields other than `id` and those of
            `meta`, an operator that there is not, or more than a filter of the server may hold.
    """
    if not filters:
        return None
    try:
        return Filter.model_validate_json(json.dumps(_converted(filters)))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise FilterError(f"The server has no filter for {filters}: {problem['msg']}.") from None
    except RecursionError:
        raise FilterError("The filters are nested too deep.") from None


def _converted(condition: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever stands among the conditions
    if not isinstance(condition, dict) or "operator" not in condition:
        raise FilterError(f"A condition must be a dictionary with an operator, which {condition!r} is not.")
    return _comparison(condition) if "field" in condition else _combination(condition)


def _combination(condition: dict[str, Any]) -> dict[str, Any]:
    operator, parts = condition["operator"], condition.get("conditions")
    if operator not in ("AND", "OR", "NOT"):
        raise FilterError(f"There is no logical operator {operator!r}; it is AND, OR or NOT.")
    if not isinstance(parts, list) or not parts:
        raise FilterError(f"{operator} needs a list of conditions.")
    filters = [_converted(part) for part in parts]
    if operator == "OR":
        return {"should": [_unwrapped(part) for part in filters]}
    together = _all_of(filters)
    return together if operator == "AND" else {"must_not": [_unwrapped(together)]}


def _all_of(filters: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one filter for several that must all hold, no deeper than they are where that can be."""
    plain = [part for part in filters if "should" not in part]
    must = [condition for part in plain for condition in part.get("must", [])]
    must_not = [condition for part in plain for condition in part.get("must_not", [])]
    return {"must": must + [part for part in filters if "should" in part], "must_not": must_not}


def _unwrapped(part: dict[str, Any]) -> dict[str, Any]:
    """Return the condition itself where it is the only one of a filter."""
    conditions = [condition for side in part.values() for condition in side]
    return conditions[0] if len(conditions) == 1 and part.get("must") else part


def _comparison(condition: dict[str, Any]) -> dict[str, Any]:
    if "value" not in condition:
        raise FilterError(f"The condition {condition!r} has no value.")
    name, operator, value = str(condition["field"]), condition["operator"], condition["value"]
    if operator in _RANGES:
        return {"must": [_range(name, operator, value)]}
    if operator not in ("==", "!=", "in", "not in"):
        known = ", ".join(["==", "!=", "in", "not in", *_RANGES])
        raise FilterError(f"There is no operator {operator!r} to compare {name!r} with; there are {known}.")
    values = value if operator in ("in", "not in") else [value]
    if not isinstance(values, list):
        raise FilterError(f"The value of {name!r} must be a list for the operator {operator!r}.")
    return {"must" if operator in ("==", "in") else "must_not": [_one_of(name, values)]}


def _range(name: str, operator: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever was given
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FilterError(f"The server compares numbers only with {operator!r}, and {value!r} for {name!r} is none.")
    if name == "id":
        raise FilterError(f"An id is no number that {operator!r} could compare.")
    return {"key": _key(name), "range": {_RANGES[operator]: value}}


def _one_of(name: str, values: list[Any]) -> dict[str, Any]:
    for value in values:
        if not isinstance(value, str | int | float | bool):
            raise FilterError(f"The server looks for texts, numbers and truth values; {value!r} for {name!r} is none.")
    if name == "id":
        return {"has_id": values}
    return {"key": _key(name), "match": {"value": values[0]} if len(values) == 1 else {"any": values}}


def _key(name: str) -> str:
    """Return the server's name for a field: that of the metadata, with or without `meta.` before it."""
    if name in _NO_METADATA:
        raise FilterError(f"The server filters by id and by the fields of meta, as meta.{name}; not by {name!r}.")
    return name.removeprefix("meta.")


def _document(hit: SearchHit) -> Document:
    assert hit.payload is not None  # it was asked for
    meta = {**hit.payload.metadata, "title": hit.payload.title}
    return Document(id=hit.id, content=hit.payload.text, meta=meta, score=hit.score)
