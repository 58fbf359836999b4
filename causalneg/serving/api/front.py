"""Around every request: counted, timed, headers for browsers, and an answer where we fail."""

import asyncio
import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from causalneg.serving.api.answers import error_response
from causalneg.serving.metrics import Metrics
from causalneg.serving.schema import ErrorBody

_LOG = logging.getLogger("causalneg.serving")
_CLIENT_LEFT = 499  # as nginx counts it; nobody is there to read an answer
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}


class Front:
    """ASGI middleware, the outermost of ours."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        has_body = scope["method"] != "HEAD"
        if not has_body:  # it is answered as GET is, up to the body
            scope = {**scope, "method": "GET"}

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            elif not has_body:
                message = {**message, "body": b""}
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            status = _CLIENT_LEFT
        except asyncio.CancelledError:
            status = status or _CLIENT_LEFT
            raise
        except Exception:
            _LOG.exception("%s %s failed", scope["method"], _route(scope))
            if status:  # the beginning of an answer has gone out; only breaking off tells that it is not whole
                raise
            body = ErrorBody(code=500, message="The server failed; its log says why.", type="internal")
            await error_response(scope["path"], body)(scope, receive, send_on)
        finally:
            self._metrics.in_flight.dec()
            self._metrics.request(_route(scope), status, time.perf_counter() - began)


def _route(scope: Scope) -> str:
    """Return the template of the route, so that paths do not become labels."""
    return getattr(scope.get("route"), "path_format", "none")
