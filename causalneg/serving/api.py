"""The HTTP interface: request and response models, limits, and one shape for every error. Knows no Ray."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from causalneg.config import ServeSettings

MAX_BODY_BYTES = 1024 * 1024


class SearchRequest(BaseModel):
    """What to search for: `query` or `queries`, one of the two."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str | None = Field(None, description="one query")
    queries: list[str] | None = Field(None, description="several queries, answered in this order")
    limit: int = Field(10, ge=1, description="hits per query; the server's largest when that is below 10")

    @model_validator(mode="after")
    def _one_of_two(self) -> "SearchRequest":
        if (self.query is None) == (self.queries is None):
            raise ValueError("give either query or queries")
        return self

    @property
    def texts(self) -> list[str]:
        """The queries as a list, be it one or several."""
        return [self.query] if self.query is not None else list(self.queries or [])


class Payload(BaseModel):
    """The passage of a hit."""

    title: str
    text: str


class SearchHit(BaseModel):
    """A passage found for a query; `score` is the cosine of their vectors."""

    id: str
    score: float
    payload: Payload


class SearchResponse(BaseModel):
    """One list of hits per query, best first; a single query gives a list of one list."""

    index_version: str
    results: list[list[SearchHit]]


class Info(BaseModel):
    """What is served."""

    model: str
    model_fingerprint: str
    index_version: str
    rows: int
    dimension: int


class Health(BaseModel):
    """Sent as soon as queries can be answered."""

    status: str = "ok"


class ErrorBody(BaseModel):
    """What is wrong: the HTTP status, a sentence, and a name that programs can test for."""

    code: int
    message: str
    type: str


class Retriever(Protocol):
    """What answers queries; its methods are called from threads."""

    def search(self, queries: list[str], limit: int) -> list[list[SearchHit]]:
        """Return the hits of each query, best first."""

    def info(self) -> Info:
        """Return what is served."""


class ApiError(Exception):
    """A request that cannot be answered."""

    def __init__(self, status: HTTPStatus, name: str, message: str) -> None:
        super().__init__(message)
        self.body = ErrorBody(code=int(status), message=message, type=name)


def _too_large(message: str) -> ApiError:
    return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


async def read_body(chunks: AsyncIterator[bytes]) -> bytes:
    """Read a request's body, but no more of it than is allowed.

    Raises:
        ApiError: it is larger.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large(f"The body is larger than {MAX_BODY_BYTES} bytes.")
    return bytes(body)


def parse_request(body: bytes, settings: ServeSettings) -> SearchRequest:
    """Turn a body into a request that can be answered.

    Raises:
        ApiError: 422 for what is not a request, 413 for more than is allowed, 400 for an empty query.
    """
    try:
        request = SearchRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        message = f"{field}: {first['msg']}" if field else first["msg"]
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", message) from error
    if len(request.texts) > settings.max_queries:
        raise _too_large(
            f"There are {len(request.texts)} queries; at most {settings.max_queries} are answered at once."
        )
    if "limit" not in request.model_fields_set:
        request = request.model_copy(update={"limit": min(request.limit, settings.max_limit)})
    if request.limit > settings.max_limit:
        raise _too_large(f"limit is {request.limit}; at most {settings.max_limit} hits are given per query.")
    if not request.texts:
        raise ApiError(HTTPStatus.BAD_REQUEST, "empty_query", "queries is empty.")
    for number, text in enumerate(request.texts):
        if not text.strip():
            name = "query" if request.query is not None else f"queries.{number}"
            raise ApiError(HTTPStatus.BAD_REQUEST, "empty_query", f"{name} is empty.")
    return request


def _respond(body: ErrorBody, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body.model_dump(), status_code=body.code, headers=headers)


async def _api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return _respond(error.body)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    name = HTTPStatus(error.status_code).name.lower()
    headers = dict(error.headers) if error.headers else None
    return _respond(ErrorBody(code=error.status_code, message=str(error.detail), type=name), headers)


async def _our_fault(_: Request, __: Exception) -> JSONResponse:
    return _respond(ErrorBody(code=500, message="The server failed; its log says why.", type="internal"))


def create_app(retriever: Retriever, settings: ServeSettings) -> FastAPI:
    """Build the HTTP application around something that answers queries."""
    # The interactive pages would load scripts from another host.
    app = FastAPI(title="causalneg", docs_url=None, redoc_url=None)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _our_fault)
    schema = {"application/json": {"schema": SearchRequest.model_json_schema()}}
    body = {"requestBody": {"content": schema, "required": True}}
    errors: dict[int | str, dict[str, Any]] = {status: {"model": ErrorBody} for status in (400, 413, 422)}

    @app.post("/v1/search", responses=errors, openapi_extra=body)
    async def search(request: Request) -> SearchResponse:
        wanted = parse_request(await read_body(request.stream()), settings)
        results = await run_in_threadpool(retriever.search, wanted.texts, wanted.limit)
        return SearchResponse(index_version=retriever.info().index_version, results=results)

    @app.get("/health")
    async def health() -> Health:
        return Health()

    @app.get("/info")
    async def info() -> Info:
        return retriever.info()

    return app
