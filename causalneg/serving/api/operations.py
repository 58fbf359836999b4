"""For who runs the server: does it live, can it answer, what does it serve, and how is it doing."""

import asyncio
from http import HTTPStatus

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse

from causalneg.serving.api.answers import json_response
from causalneg.serving.api.context import Context
from causalneg.serving.errors import ApiError
from causalneg.serving.metrics import CONTENT_TYPE
from causalneg.serving.schema import ErrorBody, Health, Info, Ready


def routes(context: Context) -> APIRouter:
    """Return the routes of this group."""
    router = APIRouter(tags=["operations"])
    service, metrics = context.service, context.metrics
    reader = Depends(context.reader)

    @router.get("/health")
    async def health() -> Health:
        """Say that the process answers."""
        return Health()

    @router.get("/ready", responses={503: {"model": ErrorBody}})
    async def ready() -> Ready:
        """Say that queries can be answered, or why not, and what does not work beside."""
        reason = service.ready()
        if reason is not None:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", reason, retry_after=1)
        return Ready(problem=await service.problem())

    @router.get("/info", response_model=Info, dependencies=[reader], **context.described(errors=(503,)))
    async def info() -> Response:
        """Say what is served."""
        return json_response(service.info())

    @router.get("/metrics", response_class=PlainTextResponse, dependencies=[reader], **context.described())
    async def numbers() -> Response:
        """Return counts and times in Prometheus' text format."""
        if service.ready() is None:
            metrics.index(service.info())
        metrics.waiting.set(service.waiting)
        return Response(await asyncio.to_thread(metrics.render), media_type=CONTENT_TYPE)

    return router
