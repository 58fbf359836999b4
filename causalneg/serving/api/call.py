"""A request from its body to its answer: size, shape, deadline, and a client that leaves."""

import asyncio
import math
import time
from collections.abc import Awaitable
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from causalneg.config import ServeSettings
from causalneg.problems import Problem, first_problem
from causalneg.serving.deadline import Deadline
from causalneg.serving.errors import ApiError, too_late

TIMEOUT_HEADER = "X-Request-Timeout-Ms"

Asked = TypeVar("Asked", bound=BaseModel)
Result = TypeVar("Result")


def too_large(message: str) -> ApiError:
    """Return the error of a request that asks for more than is allowed."""
    return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def invalid(message: str, param: str | None = None) -> ApiError:
    """Return the error of a request that has not the shape it should."""
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", message, param=param)


def check_count(count: int, what: str, most: int) -> None:
    """Refuse more queries, inputs or passages than one request may have.

    Raises:
        ApiError: 413.
    """
    if count > most:
        raise too_large(f"There are {count} {what}; at most {most} are taken at once.")


def parse(model: type[Asked], body: bytes) -> Asked:
    """Turn a body into what is asked.

    Raises:
        ApiError: 422, with the first field that is wrong.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = _problem(error, body)
        raise invalid(str(found), str(found.place[0]) if found.place else None) from error


def _problem(error: ValidationError, body: bytes) -> Problem:
    try:
        return first_problem(error, from_json(body))
    except ValueError:  # it is no JSON, which the error says itself
        return first_problem(error, None)


async def read_body(request: Request, limit: int) -> bytes:
    """Read a request's body, but no more than `limit` bytes of it.

    Raises:
        ApiError: 413, it is larger or says that it is.
        ClientDisconnect: the client left.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_large(f"The body is larger than {limit} bytes.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large(f"The body is larger than {limit} bytes.")
    return bytes(body)


class Call:
    """One request at work; the clock starts when it is made.

    Raises:
        ApiError: 422, the header is no number of milliseconds; the body is not looked at then.
    """

    def __init__(self, request: Request, settings: ServeSettings) -> None:
        self._request, self._settings = request, settings
        self._began = time.monotonic()
        self._header_ms = self._header()

    async def body(self, model: type[Asked]) -> Asked:
        """Read what is asked.

        Raises:
            ApiError: 408, 413, 415 or 422.
            ClientDisconnect: the client left.
        """
        coding = self._request.headers.get("content-encoding", "").strip()
        if coding.lower() not in ("", "identity"):
            raise ApiError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "compressed_body",
                f"Bodies compressed as {coding[:50]!r} are not read; send it as it is, without Content-Encoding.",
            )
        limit = int(self._settings.max_body_mb * 1_000_000)
        try:
            async with asyncio.timeout(self._settings.timeout_ms / 1000):
                body = await read_body(self._request, limit)
        except TimeoutError as error:
            raise ApiError(HTTPStatus.REQUEST_TIMEOUT, "slow_body", "The body did not arrive in time.") from error
        return parse(model, body)

    def deadline(self, timeout_ms: int | None = None) -> Deadline:
        """Return until when to answer: the lesser of the header's and the body's time, the server's for each part."""
        asked = [t / 1000 for t in (timeout_ms, self._header_ms) if t is not None]
        return Deadline(self._settings.timeout_ms / 1000, min(asked, default=math.inf), self._began)

    def _header(self) -> int | None:
        value = self._request.headers.get(TIMEOUT_HEADER)
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal() and len(value) < 16 and int(value)):
            raise invalid(f"{TIMEOUT_HEADER}: give a whole number of milliseconds, at least 1.")
        return int(value)

    async def answer(self, work: Awaitable[Result], deadline: Deadline) -> Result:
        """Wait for an answer, and cancel the work when nobody waits for it any more.

        Raises:
            ApiError: 504, the deadline passed.
            ClientDisconnect: the client left.
        """
        with _Watched(self._request.receive):
            try:
                async with deadline.timeout() as timeout:
                    return await work
            except TimeoutError as error:
                if not timeout.expired():
                    raise
                raise too_late() from error


class _Watched:
    """Cancels the block when the client leaves, and turns that cancellation into ClientDisconnect."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelled_before = task, task.cancelling()
        self._watch = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._watch.cancel()
        # Who else cancelled, as the server that shuts down, is to see it: asyncio counts the cancellations.
        if self._left and self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
            raise ClientDisconnect
