"""Puts the routes together."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from causalneg import __version__
from causalneg.config import ServeSettings
from causalneg.serving.api import embeddings, models, operations, passages, search, site, versions
from causalneg.serving.api.answers import error_response
from causalneg.serving.api.call import TIMEOUT_HEADER
from causalneg.serving.api.context import SECURITY, Context
from causalneg.serving.api.front import Front
from causalneg.serving.api.service import Service
from causalneg.serving.errors import ApiError
from causalneg.serving.keys import Keys
from causalneg.serving.metrics import Metrics
from causalneg.serving.schema import (
    ActivateRequest,
    DeleteRequest,
    EmbeddingsRequest,
    EmbedRequest,
    ErrorBody,
    SearchRequest,
    UpsertRequest,
)

_BODIES = (SearchRequest, EmbeddingsRequest, EmbedRequest, UpsertRequest, DeleteRequest, ActivateRequest)


class _App(FastAPI):
    """FastAPI whose document also has the bodies, which the routes parse themselves, and the keys."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            components = super().openapi().setdefault("components", {})
            _, bodies = models_json_schema(
                [(body, "validation") for body in _BODIES], ref_template="#/components/schemas/{model}"
            )
            components.setdefault("schemas", {}).update(bodies["$defs"])
            components["securitySchemes"] = SECURITY
        assert self.openapi_schema is not None
        return self.openapi_schema


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error_response(request.url.path, error.body, error.headers, error.param)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    name = HTTPStatus(error.status_code).name.lower()
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of the first route of this path only.
        path = request.scope["route"].path
        methods = {m for r in request.app.routes if r.path == path for m in r.methods}
        methods |= {"HEAD"} if "GET" in methods else set()
        headers["Allow"] = ", ".join(sorted(methods))
    body = ErrorBody(code=error.status_code, message=f"{error.detail}.", type=name)
    return error_response(request.url.path, body, headers)


def create_app(service: Service, settings: ServeSettings, metrics: Metrics, keys: Keys) -> FastAPI:
    """Build the HTTP application around what answers."""
    # FastAPI's own pages load scripts from another host; a path with a slash too many is another path.
    app = _App(title="causalneg", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", TIMEOUT_HEADER],
        )
    app.add_middleware(Front, metrics=metrics)  # the last one added is the outermost
    context = Context(service, settings, metrics, keys)
    for group in (search, embeddings, models, passages, versions, operations):
        app.include_router(group.routes(context))
    app.include_router(site.routes())
    return app
