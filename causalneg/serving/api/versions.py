"""Index versions: which are there, and which of them answers."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from causalneg.serving.api.answers import json_response
from causalneg.serving.api.context import Context, log_change
from causalneg.serving.schema import ActivateRequest, IndexList, MergeResponse, SwapResponse


def routes(context: Context) -> APIRouter:
    """Return the routes of this group."""
    router = APIRouter(tags=["index"])
    service = context.service
    writer = Depends(context.writer)

    @router.get(
        "/v1/index",
        response_model=IndexList,
        dependencies=[Depends(context.reader)],
        **context.described(errors=(503,)),
    )
    async def versions() -> Response:
        """Return the versions, newest first."""
        return json_response(await service.versions())

    @router.post(
        "/v1/index/activate",
        response_model=SwapResponse,
        **context.described(ActivateRequest, errors=(404, 409, 503), changes=True),
    )
    async def activate(request: Request, who: Annotated[str, writer]) -> Response:
        """Have another version answer."""
        asked = await context.call(request).body(ActivateRequest)
        response = await service.activate(asked.version)
        log_change(request, who)
        return json_response(response)

    @router.post(
        "/v1/index/rollback",
        response_model=SwapResponse,
        **context.described(errors=(404, 409, 503), changes=True),
    )
    async def rollback(request: Request, who: Annotated[str, writer]) -> Response:
        """Have the version answer that did before."""
        response = await service.roll_back()
        log_change(request, who)
        return json_response(response)

    @router.post(
        "/v1/index/merge",
        response_model=MergeResponse,
        **context.described(errors=(409, 503, 507), changes=True),
    )
    async def merge(request: Request, who: Annotated[str, writer]) -> Response:
        """Begin to build a version that holds the changes; it is activated when it is there."""
        response = await service.merge()
        log_change(request, who)
        return json_response(response)

    return router
