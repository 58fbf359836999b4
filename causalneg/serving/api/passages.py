"""Passages: add, replace, take away, look at."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from causalneg.serving.api.answers import json_response
from causalneg.serving.api.call import check_count
from causalneg.serving.api.context import Context, log_change
from causalneg.serving.errors import ApiError
from causalneg.serving.schema import ChangeResponse, DeleteRequest, PassageResponse, UpsertRequest


def routes(context: Context) -> APIRouter:
    """Return the routes of this group."""
    router = APIRouter(tags=["passages"])
    service, settings = context.service, context.settings
    writer = Depends(context.writer)

    @router.post(
        "/v1/passages",
        response_model=ChangeResponse,
        **context.described(UpsertRequest, errors=(409, 503, 507), deadline=True, changes=True),
    )
    async def upsert(request: Request, who: Annotated[str, writer]) -> Response:
        """Add passages, or put them in place of those with their ids."""
        call = context.call(request)
        asked = await call.body(UpsertRequest)
        check_count(len(asked.passages), "passages", settings.max_queries)
        deadline = call.deadline()
        response = await call.answer(service.upsert(asked.passages, deadline), deadline)
        log_change(request, who)
        return json_response(response)

    deleting = context.described(DeleteRequest, errors=(409, 503, 507), changes=True)

    @router.delete("/v1/passages", response_model=ChangeResponse, **deleting)
    @router.post("/v1/passages/delete", response_model=ChangeResponse, **deleting)
    async def delete(request: Request, who: Annotated[str, writer]) -> Response:
        """Take passages away; those that are not there count as taken away."""
        asked = await context.call(request).body(DeleteRequest)
        check_count(len(asked.ids), "passages", settings.max_queries)
        response = await service.delete(asked.ids)
        log_change(request, who)
        return json_response(response)

    @router.get(
        "/v1/passages/{passage_id:path}",
        response_model=PassageResponse,
        dependencies=[Depends(context.reader)],
        **context.described(errors=(404, 503)),
    )
    async def passage(passage_id: str) -> Response:
        """Return a passage by its id."""
        found = await service.passage(passage_id)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "no_such_passage", "There is no passage with this id.")
        return json_response(found)

    return router
