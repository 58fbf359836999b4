"""Search."""

from http import HTTPStatus

from fastapi import APIRouter, Depends, Request, Response

from causalneg.config import ServeSettings
from causalneg.serving.api.answers import json_response
from causalneg.serving.api.call import check_count, too_large
from causalneg.serving.api.context import Context
from causalneg.serving.errors import ApiError
from causalneg.serving.schema import SearchRequest, SearchResponse


def checked(request: SearchRequest, settings: ServeSettings) -> SearchRequest:
    """Return a request that can be answered: its limit, where none was given, is what is allowed.

    Raises:
        ApiError: 413 for more than is allowed, 400 for an empty query.
    """
    texts = request.texts
    check_count(len(texts), "queries", settings.max_queries)
    if "limit" not in request.model_fields_set:
        request = request.model_copy(update={"limit": max(1, min(request.limit, settings.max_limit - request.offset))})
    if request.offset + request.limit > settings.max_limit:
        raise too_large(
            f"offset + limit is {request.offset + request.limit}; at most {settings.max_limit} hits are looked at."
        )
    if not texts:
        raise ApiError(HTTPStatus.BAD_REQUEST, "empty_query", "queries is empty.")
    for number, text in enumerate(texts):
        if not text.strip():
            name = "query" if request.query is not None else f"queries.{number}"
            raise ApiError(HTTPStatus.BAD_REQUEST, "empty_query", f"{name} is empty.")
    return request


def routes(context: Context) -> APIRouter:
    """Return the routes of this group."""
    router = APIRouter(tags=["search"], dependencies=[Depends(context.reader)])
    service, settings, metrics = context.service, context.settings, context.metrics

    @router.post(
        "/v1/search",
        response_model=SearchResponse,
        **context.described(SearchRequest, errors=(400, 503), deadline=True),
    )
    async def search(request: Request) -> Response:
        """Find the passages nearest to one or several queries."""
        call = context.call(request)
        asked = checked(await call.body(SearchRequest), settings)
        deadline = call.deadline(asked.timeout_ms)
        response = await call.answer(service.search(asked, deadline), deadline)
        metrics.answered(response.timings, response.truncated, reranked=asked.rerank)
        if metrics.is_new(response.index_version, response.change):
            metrics.index(service.info())
        return json_response(response)

    return router
